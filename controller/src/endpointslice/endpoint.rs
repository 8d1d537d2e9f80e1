//! One pod as an endpoint.
//!
//! Pure.

use super::Input;
use crate::objects::{Node, Pod};
use crate::validate::is_headless;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use std::net::IpAddr;

/// Returns true if the pod can be an endpoint: it has a sandbox and has not finished for good.
pub(super) fn can_serve(pod: &Pod) -> bool {
    pod.has_sandbox && !pod.is_finished
}

/// The endpoint of a pod at an address.
pub(super) fn endpoint(input: &Input<'_>, pod: &Pod, node: Option<&Node>, address: IpAddr) -> Endpoint {
    let publishes_unready = input
        .service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            // A terminating pod is never ready (KEP-1672), regardless of its readiness probe; serving carries the probe's result.
            ready: Some(publishes_unready || (pod.is_ready && !pod.is_terminating)),
            serving: Some(pod.is_ready),
            terminating: Some(pod.is_terminating),
        }),
        hostname: hostname(input, pod),
        node_name: pod.node.as_deref().map(str::to_owned),
        // No resourceVersion: a pod change that no consumer can see must not rewrite the slice.
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some((*pod.namespace).to_owned()),
            name: Some((*pod.name).to_owned()),
            uid: Some((*pod.uid).to_owned()),
            ..ObjectReference::default()
        }),
        zone: node.and_then(|node| node.zone.clone()),
        deprecated_topology: None,
        hints: None,
    }
}

/// The DNS name of the endpoint under the Service's. Where only our slices exist (a headless Service without `spec.selector`)
/// every pod gets one, also those of a StatefulSet whose `serviceName` is another Service.
fn hostname(input: &Input<'_>, pod: &Pod) -> Option<String> {
    let given = pod.hostname.as_deref();
    if input.binding.is_selectorless && is_headless(input.service) {
        return given
            .or(Some(&pod.name))
            .filter(|name| is_dns_label(name))
            .map(str::to_owned);
    }
    let is_subdomain = pod.subdomain.as_deref() == service_name(input.service);
    given.filter(|_| is_subdomain).map(str::to_owned)
}

fn service_name(service: &Service) -> Option<&str> {
    service.metadata.name.as_deref()
}

/// The API server rejects another hostname, and with it the whole slice.
fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.')
}

/// Identity of an endpoint: pod, address and host name. The rest may change in place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointKey {
    namespace: Option<String>,
    name: Option<String>,
    addresses: Vec<String>,
    hostname: Option<String>,
}

impl EndpointKey {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let target = endpoint.target_ref.as_ref();
        Self {
            namespace: target.and_then(|target| target.namespace.clone()),
            name: target.and_then(|target| target.name.clone()),
            addresses: endpoint.addresses.clone(),
            hostname: endpoint.hostname.clone(),
        }
    }
}

/// Compares two endpoints with one key. Hints are compared separately; a resourceVersion in the reference, which the archived
/// multus-service controller wrote, is ignored.
pub(super) fn is_equivalent(one: &Endpoint, other: &Endpoint) -> bool {
    let reference = |endpoint: &Endpoint| {
        endpoint.target_ref.clone().map(|target| ObjectReference {
            resource_version: None,
            ..target
        })
    };
    one.conditions == other.conditions
        && one.node_name == other.node_name
        && one.zone == other.zone
        && reference(one) == reference(other)
}

/// Returns true if the endpoint takes new connections.
pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::fixture::{Fixture, pod};
    use rstest::rstest;

    fn made(fixture: &Fixture, pod: &Pod) -> Endpoint {
        let node = fixture.nodes.get("node-1");
        fixture.with_input(|input| endpoint(input, pod, node, "10.1.1.1".parse().unwrap()))
    }

    /// The twelve cases of the archived controller of PodToEndpoint, and the conditions in full.
    #[rstest]
    #[case::ready(true, false, false, (true, true, false))]
    #[case::ready_published(true, false, true, (true, true, false))]
    #[case::unready(false, false, false, (false, false, false))]
    #[case::unready_published(false, false, true, (true, false, false))]
    #[case::ready_terminating(true, true, false, (false, true, true))]
    #[case::ready_terminating_published(true, true, true, (true, true, true))]
    #[case::unready_terminating(false, true, false, (false, false, true))]
    fn pod_to_endpoint_conditions(
        #[case] ready: bool,
        #[case] terminating: bool,
        #[case] published: bool,
        #[case] want: (bool, bool, bool),
    ) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.publish_not_ready_addresses = Some(published));
        let pod = pod(1).ready(ready);
        let pod = if terminating { pod.terminating() } else { pod }.build();
        let conditions = made(&fixture, &pod).conditions.unwrap();
        assert_eq!(
            (
                conditions.ready.unwrap(),
                conditions.serving.unwrap(),
                conditions.terminating.unwrap()
            ),
            want
        );
    }

    #[test]
    fn pod_to_endpoint_node_zone_and_reference() {
        let endpoint = made(&Fixture::new(), &pod(1).build());
        assert_eq!(endpoint.node_name.as_deref(), Some("node-1"));
        assert_eq!(endpoint.zone.as_deref(), Some("us-central1-a"));
        let target = endpoint.target_ref.unwrap();
        assert_eq!(target.kind.as_deref(), Some("Pod"));
        assert_eq!(
            (target.namespace.as_deref(), target.name.as_deref()),
            (Some("shop"), Some("pod1"))
        );
        assert_eq!(target.uid.as_deref(), Some("pod1-uid"));
        assert_eq!(target.resource_version, None);
    }

    /// Hostname only if the subdomain is the Service (`ShouldSetHostname`); without spec.selector and headless: for every pod.
    #[rstest]
    #[case::no_hostname("172.30.0.10", false, None, None, None)]
    #[case::hostname_alone("172.30.0.10", false, Some("web-0"), None, None)]
    #[case::other_subdomain("172.30.0.10", false, Some("web-0"), Some("other"), None)]
    #[case::own_subdomain("172.30.0.10", false, Some("web-0"), Some("web"), Some("web-0"))]
    #[case::headless_with_selector("None", false, Some("web-0"), Some("other"), None)]
    #[case::selectorless_cluster_ip("172.30.0.10", true, Some("web-0"), Some("other"), None)]
    #[case::selectorless_headless("None", true, Some("web-0"), Some("other"), Some("web-0"))]
    #[case::selectorless_headless_pod_name("None", true, None, None, Some("pod1"))]
    fn pod_to_endpoint_hostname(
        #[case] cluster_ip: &str,
        #[case] selectorless: bool,
        #[case] hostname: Option<&str>,
        #[case] subdomain: Option<&str>,
        #[case] want: Option<&str>,
    ) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.cluster_ip = Some(cluster_ip.into()));
        fixture.binding.is_selectorless = selectorless;
        let mut pod = pod(1).build();
        pod.hostname = hostname.map(Into::into);
        pod.subdomain = subdomain.map(Into::into);
        assert_eq!(made(&fixture, &pod).hostname.as_deref(), want);
    }

    #[test]
    fn a_pod_name_that_is_no_dns_label_is_no_hostname() {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.cluster_ip = Some("None".into()));
        fixture.binding.is_selectorless = true;
        let mut pod = pod(1).build();
        pod.name = "a.b".into();
        assert_eq!(made(&fixture, &pod).hostname, None);
    }
}
