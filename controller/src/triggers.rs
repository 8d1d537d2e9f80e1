//! The Services that a change affects.
//!
//! Pure. A change to no field that the planner reads enqueues no Service.

use crate::endpointslice::{Routing, routing};
use crate::index::{Index, ServiceEntry, Step, Update};
use crate::objects::{Node, Pod};
use crate::validate::Acceptance;
use api::{NetworkRef, ObjectName};
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Returns the Services that an update of the index affects.
pub(crate) fn affected(index: &Index, update: Update) -> BTreeSet<ObjectName> {
    match update {
        Update::Services { steps, left_scope } => {
            steps.iter().filter_map(service).chain(left_scope).collect()
        }
        Update::Pods(steps) => steps.iter().flat_map(|step| pod(index, step)).collect(),
        Update::Nodes(steps) => steps.iter().flat_map(|step| node(index, step)).collect(),
        Update::Networks { steps, is_first_list } => networks(index, &steps, is_first_list),
        Update::Affected(services) => services,
    }
}

/// A Service changed: itself, unless only versions did.
fn service(step: &Step<ServiceEntry>) -> Option<ObjectName> {
    let content =
        |entry: &Option<Arc<ServiceEntry>>| entry.as_deref().map(|entry| without_version(&entry.service));
    (content(&step.before) != content(&step.after)).then(|| step.key.clone())
}

fn without_version(service: &Service) -> Service {
    let mut service = service.clone();
    service.metadata.resource_version = None;
    service
}

/// A Pod changed: the Services that selected it or select it now.
fn pod(index: &Index, step: &Step<Pod>) -> BTreeSet<ObjectName> {
    if step.before == step.after {
        return BTreeSet::new();
    }
    let sides = [&step.before, &step.after];
    sides
        .into_iter()
        .flatten()
        .flat_map(|pod| selecting(index, pod))
        .collect()
}

fn selecting<'a>(index: &'a Index, pod: &'a Pod) -> impl Iterator<Item = ObjectName> + 'a {
    let services = index.services.in_namespace(&pod.namespace);
    services
        .filter(|entry| selects(entry, pod))
        .map(|entry| ObjectName::of(&entry.service))
}

fn selects(entry: &ServiceEntry, pod: &Pod) -> bool {
    matches!(&entry.acceptance, Acceptance::Served(binding) if binding.selector.matches(&pod.labels))
}

/// A Node changed: the Services of the pods on it, of pods that claim an address it got or lost and of manual slices that name one, and
/// all that distribute endpoints by the nodes' CPU.
fn node(index: &Index, step: &Step<Node>) -> BTreeSet<ObjectName> {
    if step.before == step.after {
        return BTreeSet::new();
    }
    let moved = moved_addresses(step);
    let concerns = |pod: &&Arc<Pod>| pod.node.as_deref() == Some(&*step.key.name) || claims(pod, &moved);
    let proportional = index
        .services
        .iter()
        .filter(|entry| routing(&entry.service) == Routing::Proportional);
    let by_capacity = proportional.map(|entry| ObjectName::of(&entry.service));
    let manual = index.manual.with_address(&moved);
    index
        .pods
        .iter()
        .filter(concerns)
        .flat_map(|pod| selecting(index, pod))
        .chain(by_capacity)
        .chain(manual)
        .collect()
}

fn moved_addresses(step: &Step<Node>) -> BTreeSet<IpAddr> {
    let of = |node: &Option<Arc<Node>>| -> BTreeSet<IpAddr> {
        node.iter()
            .flat_map(|node| node.addresses.iter().copied())
            .collect()
    };
    of(&step.before)
        .symmetric_difference(&of(&step.after))
        .copied()
        .collect()
}

fn claims(pod: &Pod, addresses: &BTreeSet<IpAddr>) -> bool {
    let attachments = pod.attachments.as_deref().unwrap_or_default();
    !addresses.is_empty()
        && attachments
            .iter()
            .flat_map(|attachment| &attachment.addresses)
            .any(|address| addresses.contains(address))
}

/// Network attachment definitions came or went: the Services bound to them. The first list may have left out any of them.
fn networks(index: &Index, steps: &[Step<ObjectName>], is_first_list: bool) -> BTreeSet<ObjectName> {
    let changed: BTreeSet<_> = steps
        .iter()
        .filter(|step| step.before.is_some() != step.after.is_some())
        .map(|step| &step.key)
        .collect();
    if changed.is_empty() && !is_first_list {
        return BTreeSet::new();
    }
    let concerns = |entry: &&Arc<ServiceEntry>| {
        let is_bound = |network: &NetworkRef| {
            let is_it =
                |key: &&ObjectName| key.namespace == network.namespace() && key.name == network.name();
            is_first_list || changed.iter().any(is_it)
        };
        entry.acceptance.network().is_some_and(is_bound)
    };
    index
        .services
        .iter()
        .filter(concerns)
        .map(|entry| ObjectName::of(&entry.service))
        .collect()
}
