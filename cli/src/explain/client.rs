//! Links about the client: whether it can use the network, by the rules of the proxy.
//!
//! Pure.

use super::case::Case;
use crate::chain::{Link, Topic};
use crate::facts::Client;
use crate::situations::{Cause, Values};
use api::NetworkRef;
use api::names::NETWORK_STATUS_ANNOTATION;
use api::network_status::{self, NetworkStatus, ParseNetworkStatus};
use k8s_openapi::api::core::v1::Pod;
use rules::{NetworkRules, PodRules, Shortcoming, Slice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Returns the interfaces of a pod from its annotation.
pub fn attachments(pod: &Pod) -> Result<Vec<NetworkStatus>, ParseNetworkStatus> {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(NETWORK_STATUS_ANNOTATION));
    text.map_or_else(
        || Ok(Vec::new()),
        |text| network_status::parse(text).map(|parsed| parsed.statuses),
    )
}

/// Returns a client's rules for the Service and its shortcomings.
pub(super) fn planned(case: &Case<'_>, pod: &Pod) -> (PodRules, Vec<Shortcoming>) {
    let (Ok(served), Ok(attachments)) = (&case.served, attachments(pod)) else {
        return (PodRules::default(), Vec::new());
    };
    let slices = case.decision.existing.iter();
    let slices: Vec<Slice> = slices.filter_map(|slice| Slice::parse(slice).ok()).collect();
    let settings = crate::settings::of_proxy(&case.facts.cluster, case.node().unwrap_or_default());
    let (network, _) = rules::network_rules(&settings, [(served, slices.iter())]);
    let networks: BTreeMap<NetworkRef, Arc<NetworkRules>> =
        BTreeMap::from([(served.network.clone(), Arc::new(network))]);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (rules, shortcomings) = rules::pod_rules(&settings.isolation, namespace, &attachments, &networks);
    (rules, shortcomings.into_iter().collect())
}

/// Returns the links about the client.
pub(super) fn client(case: &Case<'_>) -> Vec<Link> {
    let Some(Client { key, pod }) = &case.facts.client else {
        return Vec::new();
    };
    let pod = match pod {
        Err(read_error) => return vec![Link::unknown(Topic::Client, read_error.to_string())],
        Ok(None) => return vec![Cause::ClientNotFound.broken(&case.values)],
        Ok(Some(pod)) => pod,
    };
    let Some(network) = &case.network else {
        return Vec::new();
    };
    if pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
    {
        return vec![on_the_host(case, network)];
    }
    let attached = match attachments(pod) {
        Ok(attached) => attached,
        Err(error) => return vec![Cause::ClientStatusUnreadable.quoted(error.to_string(), &case.values)],
    };
    let Some(status) = network_status::on(&attached, network).next() else {
        return vec![not_attached(&case.values, network, &attached)];
    };
    let (rules, shortcomings) = planned(case, pod);
    let has_source = rules
        .networks
        .values()
        .any(|one| one.ipv4.is_some() || one.ipv6.is_some());
    let links = shortcomings
        .iter()
        .filter_map(|shortcoming| shortcoming_link(case, shortcoming));
    let links: Vec<Link> = links
        .map(|link| if has_source { link.softened() } else { link })
        .collect();
    if !has_source && !links.is_empty() {
        return links;
    }
    let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
    let text = format!(
        "pod {key} has interface {} on {network}: {}",
        status.interface,
        addresses.join(", ")
    );
    [Link::good(Topic::Client, text)]
        .into_iter()
        .chain(links)
        .collect()
}

/// A client with hostNetwork has the rules of the node, if an administrator mapped the network to an interface of it.
fn on_the_host(case: &Case<'_>, network: &NetworkRef) -> Link {
    let proxy = case
        .facts
        .cluster
        .config()
        .and_then(|config| config.spec.proxy.as_ref());
    let mut mapped = proxy
        .iter()
        .flat_map(|proxy| proxy.host_networks.iter().flatten());
    match mapped.find(|mapped| mapped.network == network.to_string()) {
        Some(mapped) => Link::unknown(
            Topic::Client,
            format!(
                "the pod uses its node's network, where {network} is interface {}: whether the node has an address there is not in the API",
                mapped.interface
            ),
        ),
        None => Cause::ClientOnHostNetwork.broken(&case.values),
    }
}

fn not_attached(values: &Values, network: &NetworkRef, attached: &[NetworkStatus]) -> Link {
    let name = |status: &&NetworkStatus| {
        let name = status.network.split_once('/').map(|(_, name)| name);
        name == Some(network.name())
    };
    match attached.iter().find(name) {
        Some(namesake) => Cause::ClientOnNamesake.broken(&values.clone().and("attached", &namesake.network)),
        None => Cause::ClientNotAttached.broken(values),
    }
}

fn shortcoming_link(case: &Case<'_>, shortcoming: &Shortcoming) -> Option<Link> {
    let situation = match shortcoming {
        Shortcoming::ForeignNetwork { .. } => Cause::ClientNotAllowed,
        Shortcoming::NoAddress { .. } => Cause::ClientNoAddress,
        Shortcoming::SeveralInterfaces { .. } => Cause::ClientSeveralInterfaces,
        Shortcoming::NetworkStatus(_) => Cause::ClientStatusUnreadable,
        Shortcoming::OtherNamespace { .. } => Cause::ClientOnNamesake,
        // These are about nodes and virtual machines and never about a pod.
        Shortcoming::HostNetwork { .. } | Shortcoming::Bypassed { .. } => return None,
    };
    let text = shortcoming.to_string();
    let says = text.split("; ").next().unwrap_or_default().to_owned();
    Some(situation.quoted(says, &case.values))
}
