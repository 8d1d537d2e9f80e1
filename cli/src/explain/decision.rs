//! The controller's decision about one Service: its index, filled from lists instead of watches.
//!
//! Pure.

use crate::facts::{Facts, Known as _};
use crate::settings::{as_node, of_controller};
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use controller::index::{Change, Event, Index, Keyed};
use controller::manual::{ManualSlice, trim};
use controller::objects::{Node, NodeObject, Pod, PodObject, ServiceCidr};
use controller::observe::{Observed, observe};
use controller::reconcile::{Decision, reconcile};
use controller::service_status::orphaned_slices::OrphanedSlices;
use controller::validate::Acceptance;
use k8s_openapi::api::core::v1::{Pod as FullPod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The decision and its inputs.
pub struct ServiceDecision {
    /// Inputs of the decision.
    pub observed: Observed,
    pub decision: Decision,
    /// The controller's settings.
    pub settings: controller::settings::Settings,
    /// Existing managed slices.
    pub existing: Vec<EndpointSlice>,
}

impl ServiceDecision {
    /// Makes the decision about a Service.
    pub fn new(facts: &Facts, service: &Service) -> Self {
        let key = ObjectName::of(service);
        let settings = of_controller(&facts.cluster);
        let all: Vec<&EndpointSlice> = facts.slices.iter().flatten().collect();
        let (ours, foreign): (Vec<&EndpointSlice>, Vec<&EndpointSlice>) =
            all.into_iter().partition(|slice| is_ours(slice));
        let mut index = Index::new(settings.clone());
        list(&mut index, [service.clone()], Change::Service);
        list(&mut index, pods(facts), Change::Pod);
        list(&mut index, nodes(facts), Change::Node);
        list(&mut index, ranges(facts), Change::ServiceCidr);
        list(&mut index, ours.iter().copied().cloned(), Change::Slice);
        if let Some(networks) = facts.networks.known().filter(|known| covers(known, service)) {
            list(&mut index, networks.found.clone(), Change::Network);
        }
        let scope = Arc::clone(index.manual.scope());
        index.update(Change::ManualScope(scope));
        let by_hand = foreign.iter().map(|slice| ManualSlice {
            slice: trim((*slice).clone()),
            left_out: 0,
        });
        list(&mut index, by_hand, Change::ManualSlice);
        let observed = observe(&index, &orphaned_slices(&index, &key, &foreign), &key);
        let decision = reconcile(&observed, &index.nodes, index.settings(), None);
        Self {
            observed,
            decision,
            settings,
            existing: ours.into_iter().cloned().collect(),
        }
    }

    /// Returns whether the Service is served, and its source of endpoints.
    pub fn acceptance(&self) -> Option<&Acceptance> {
        self.observed.service.as_ref().map(|entry| &entry.acceptance)
    }

    /// Returns the slices after the decision is applied.
    pub fn wanted(&self) -> Vec<EndpointSlice> {
        let plan = &self.decision.slices;
        let uid = |slice: &EndpointSlice| slice.metadata.uid.clone();
        let replaced: BTreeSet<_> = plan.update.iter().map(uid).collect();
        let deleted: BTreeSet<_> = plan.delete.iter().map(|slice| uid(slice)).collect();
        let stay = |slice: &&EndpointSlice| !replaced.contains(&uid(slice)) && !deleted.contains(&uid(slice));
        let kept = self.existing.iter().filter(stay);
        kept.chain(&plan.update).chain(&plan.create).cloned().collect()
    }
}

fn list<T>(index: &mut Index, objects: impl IntoIterator<Item = T>, change: impl Fn(Event<T>) -> Change) {
    index.update(change(Event::ListStarted));
    for object in objects {
        index.update(change(Event::Listed(object)));
    }
    index.update(change(Event::ListDone));
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY_LABEL))
        .map(String::as_str)
        == Some(MANAGED_BY)
}

fn pods(facts: &Facts) -> Vec<Pod> {
    facts.pods.iter().flatten().filter_map(as_pod).collect()
}

/// Converts a pod to the controller's type.
fn as_pod(pod: &FullPod) -> Option<Pod> {
    let value = serde_json::to_value(pod).ok()?;
    let object: PodObject = serde_json::from_value(value).ok()?;
    Some(object.into())
}

/// Without permission to read nodes, the nodes of pods are used, without addresses: pods of a deleted node are not endpoints.
fn nodes(facts: &Facts) -> Vec<Node> {
    if let Some(nodes) = facts.cluster.nodes.known() {
        return nodes.iter().map(as_node).collect();
    }
    let named: BTreeSet<String> = facts
        .pods
        .iter()
        .flatten()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
        .collect();
    let named = named.into_iter().map(|name| Node {
        name,
        ..Node::from(NodeObject::default())
    });
    named.collect()
}

fn ranges(facts: &Facts) -> Vec<ServiceCidr> {
    let objects = facts.cluster.ranges.iter().flatten();
    objects.cloned().map(ServiceCidr::from).collect()
}

fn covers(networks: &crate::facts::Networks, service: &Service) -> bool {
    api::service::network(service).is_ok_and(|network| networks.covers(network.namespace()))
}

/// Returns slices of other controllers on a labeled Service.
fn orphaned_slices(index: &Index, key: &ObjectName, foreign: &[&EndpointSlice]) -> OrphanedSlices {
    let mut orphaned = OrphanedSlices::default();
    let entry = index.services.get(key);
    let is_selectorless = entry.is_some_and(
        |entry| matches!(&entry.acceptance, Acceptance::Served(binding) if binding.is_selectorless),
    );
    if is_selectorless && orphaned.is_new(key) {
        let names = foreign.iter().map(|slice| slice.key().name).collect();
        orphaned.record(key, Ok(names), tokio::time::Instant::now());
    }
    orphaned
}
