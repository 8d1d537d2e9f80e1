//! `Slice`: an EndpointSlice of the controller (or of the archived multus-service controller), parsed once and trimmed.
//!
//! Pure. A slice counts for a Service only with the controller's managed-by label, the service-name label and an ownerReference to the
//! Service's UID: a client that may create slices in a namespace does not steer its traffic by accident, and slices of a deleted
//! Service cannot serve its successor of the same name.

use crate::{Port, Protocol, ServedService};
use api::names::{LAST_CHANGE_TRIGGER_TIME_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use api::network_status::MAX_ADDRESSES;
use api::{Family, ObjectName};
use k8s_openapi::api::discovery::v1::{self, EndpointSlice};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A slice that may count for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Name of the slice.
    pub name: ObjectName,
    /// Name of its Service, by label.
    pub service: ObjectName,
    /// UIDs of the Services that own it.
    pub owners: BTreeSet<String>,
    /// Ports: name of the Service port, and the port of the endpoints.
    pub ports: Vec<(String, Port)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Addresses that are not used as endpoints.
    pub rejected: Vec<InvalidAddress>,
    /// Time of the change that led to this content, if the controller knows it.
    pub triggered: Option<Timestamp>,
    /// `metadata.generation` of the slice, for traces.
    pub generation: Option<i64>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses of the slice's family. The archived multus-service controller lists every address of a pod that has several interfaces
    /// on the network; the API calls them fungible.
    pub addresses: Vec<IpAddr>,
    /// Receives new flows (or is published regardless of readiness).
    pub ready: bool,
    /// Its readiness probe succeeds, whether or not it is terminating.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// Node of its pod.
    pub node: Option<String>,
    /// Zones that should use it. Empty: no hint.
    pub zone_hints: BTreeSet<String>,
    /// Nodes that should use it. Empty: no hint.
    pub node_hints: BTreeSet<String>,
}

/// An address that is not used as endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("EndpointSlice \"{slice}\": address {address:?} is not used: {why}")]
pub struct InvalidAddress {
    /// Name of the slice.
    pub slice: ObjectName,
    /// The address, truncated.
    pub address: String,
    /// Reason.
    pub why: String,
}

/// Reason why a slice does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// It is managed by another controller.
    #[error("label {MANAGED_BY_LABEL} is not {MANAGED_BY}")]
    NotOurs,
    /// It belongs to no Service.
    #[error("label {SERVICE_NAME_LABEL} is missing")]
    NoService,
    /// `FQDN`, or an unknown family.
    #[error("addressType {0:?} is neither IPv4 nor IPv6")]
    AddressType(String),
}

impl Slice {
    /// Parses a slice of a watch.
    pub fn parse(slice: &EndpointSlice) -> Result<Self, NotCounted> {
        let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        if label(MANAGED_BY_LABEL).is_none_or(|value| value != MANAGED_BY) {
            return Err(NotCounted::NotOurs);
        }
        let service = label(SERVICE_NAME_LABEL).ok_or(NotCounted::NoService)?;
        let family = Family::parse(&slice.address_type)
            .ok_or_else(|| NotCounted::AddressType(slice.address_type.chars().take(32).collect()))?;
        let name = ObjectName::of(slice);
        let mut parsed = Self {
            service: ObjectName::new(name.namespace.as_str(), service.as_str()),
            name,
            owners: owners(slice),
            ports: slice.ports.iter().flatten().filter_map(port).collect(),
            endpoints: Vec::with_capacity(slice.endpoints.len()),
            rejected: Vec::new(),
            triggered: triggered(slice),
            generation: slice.metadata.generation,
        };
        for endpoint in &slice.endpoints {
            let endpoint = parsed.endpoint(endpoint, family);
            parsed.endpoints.push(endpoint);
        }
        Ok(parsed)
    }

    /// Whether the slice has endpoints of `service`.
    pub fn counts_for(&self, service: &ServedService) -> bool {
        self.service == service.name && self.owners.contains(&service.uid)
    }

    fn endpoint(&mut self, endpoint: &v1::Endpoint, family: Family) -> Endpoint {
        let hints = endpoint.hints.clone().unwrap_or_default();
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // "A nil value should be interpreted as true"; serving "should defer to the ready condition", terminating is false.
        let ready = conditions.ready.unwrap_or(true);
        Endpoint {
            addresses: self.addresses(&endpoint.addresses, family),
            node: endpoint.node_name.clone(),
            zone_hints: hints
                .for_zones
                .into_iter()
                .flatten()
                .map(|zone| zone.name)
                .collect(),
            node_hints: hints
                .for_nodes
                .into_iter()
                .flatten()
                .map(|node| node.name)
                .collect(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        }
    }

    fn addresses(&mut self, texts: &[String], family: Family) -> Vec<IpAddr> {
        let (read, beyond) = texts.split_at(texts.len().min(MAX_ADDRESSES));
        if let Some(first) = beyond.first() {
            let why = format!("the endpoint has more than {MAX_ADDRESSES} addresses");
            self.reject(first, why);
        }
        let mut addresses: Vec<_> = read
            .iter()
            .filter_map(|text| self.address(text, family))
            .collect();
        // Nearly always one, and there are ten thousand endpoints.
        addresses.shrink_to_fit();
        addresses
    }

    fn address(&mut self, text: &str, family: Family) -> Option<IpAddr> {
        let why = match text.parse::<IpAddr>() {
            Err(_) => "it is not an IP address".to_owned(),
            Ok(address) if Family::of(address) != family => {
                format!("the slice's addressType is {family}")
            }
            Ok(address) => match api::address::check(address) {
                Ok(()) => return Some(address),
                Err(why) => why.to_string(),
            },
        };
        self.reject(text, why);
        None
    }

    fn reject(&mut self, address: &str, why: String) {
        self.rejected.push(InvalidAddress {
            slice: self.name.clone(),
            address: address.chars().take(64).collect(),
            why,
        });
    }
}

fn triggered(slice: &EndpointSlice) -> Option<Timestamp> {
    let annotations = slice.metadata.annotations.as_ref()?;
    annotations.get(LAST_CHANGE_TRIGGER_TIME_ANNOTATION)?.parse().ok()
}

fn owners(slice: &EndpointSlice) -> BTreeSet<String> {
    let owners = slice.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.kind == "Service")
        .map(|owner| owner.uid.clone())
        .collect()
}

/// A port without a number means "all ports", which no Service port can mean: kube-proxy ignores it too.
fn port(port: &v1::EndpointPort) -> Option<(String, Port)> {
    let number = u16::try_from(port.port?).ok().filter(|number| *number > 0)?;
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    Some((port.name.clone().unwrap_or_default(), Port { protocol, number }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn slice(labels: &Value, address_type: &str, endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "nginx-multus-x7k2p", "namespace": "web", "labels": labels, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": "nginx", "uid": "u-1"},
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "nginx", "uid": "u-2"},
            ]},
            "addressType": address_type,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}, {"name": "bad", "port": 70000}],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn labels() -> Value {
        json!({MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: "nginx"})
    }

    #[test]
    fn parses_a_slice_of_the_controller() {
        let parsed = Slice::parse(&slice(&labels(), "IPv4", &json!([{"addresses": ["10.1.0.2"]}]))).unwrap();
        assert_eq!(parsed.service.to_string(), "web/nginx");
        assert_eq!(parsed.owners, BTreeSet::from(["u-1".to_owned()]));
        assert_eq!(
            parsed.ports,
            [(
                "http".to_owned(),
                Port {
                    protocol: Protocol::Tcp,
                    number: 8080
                }
            )]
        );
    }

    #[rstest]
    #[case::absent(json!(null), (true, true, false))]
    #[case::not_ready(json!({"ready": false}), (false, false, false))]
    #[case::terminating(json!({"ready": false, "serving": true, "terminating": true}), (false, true, true))]
    #[case::published(json!({"ready": true, "serving": false, "terminating": true}), (true, false, true))]
    fn absent_conditions_have_the_meaning_of_the_api(
        #[case] conditions: Value,
        #[case] want: (bool, bool, bool),
    ) {
        let endpoints = json!([{"addresses": ["10.1.0.2"], "conditions": conditions}]);
        let parsed = Slice::parse(&slice(&labels(), "IPv4", &endpoints)).unwrap();
        let endpoint = &parsed.endpoints[0];
        assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), want);
    }

    #[test]
    fn hints_and_node_are_read() {
        let endpoints = json!([{"addresses": ["10.1.0.2"], "nodeName": "n1", "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}, {"name": "n2"}]}}]);
        let endpoint = Slice::parse(&slice(&labels(), "IPv4", &endpoints))
            .unwrap()
            .endpoints
            .remove(0);
        assert_eq!(endpoint.node.as_deref(), Some("n1"));
        assert_eq!(endpoint.zone_hints, BTreeSet::from(["a".to_owned()]));
        assert_eq!(
            endpoint.node_hints,
            BTreeSet::from(["n1".to_owned(), "n2".to_owned()])
        );
    }

    #[test]
    fn a_hostile_number_of_addresses_is_truncated() {
        let addresses: Vec<String> = (0..100).map(|i| format!("10.1.0.{i}")).collect();
        let parsed = Slice::parse(&slice(&labels(), "IPv4", &json!([{"addresses": addresses}]))).unwrap();
        assert_eq!(parsed.endpoints[0].addresses.len(), MAX_ADDRESSES);
        assert!(parsed.rejected[0].to_string().contains("more than 64 addresses"));
    }

    #[rstest]
    #[case::kubernetes_own(json!({MANAGED_BY_LABEL: "endpointslice-controller.k8s.io", SERVICE_NAME_LABEL: "nginx"}), "IPv4", NotCounted::NotOurs)]
    #[case::no_labels(json!({}), "IPv4", NotCounted::NotOurs)]
    #[case::no_service(json!({MANAGED_BY_LABEL: MANAGED_BY}), "IPv4", NotCounted::NoService)]
    #[case::names(labels(), "FQDN", NotCounted::AddressType("FQDN".into()))]
    fn other_slices_do_not_count(#[case] labels: Value, #[case] address_type: &str, #[case] why: NotCounted) {
        assert_eq!(Slice::parse(&slice(&labels, address_type, &json!([]))), Err(why));
    }

    #[rstest]
    #[case::text("web-0", "not an IP")]
    #[case::prefix("10.1.0.2/24", "not an IP")]
    #[case::other_family("fd00:1::2", "addressType is IPv4")]
    #[case::loopback("127.0.0.1", "loopback")]
    #[case::link_local("169.254.169.254", "link-local")]
    fn an_unusable_address_is_left_out_and_reported(#[case] address: &str, #[case] why: &str) {
        let endpoints = json!([{"addresses": [address, "10.1.0.3"]}]);
        let parsed = Slice::parse(&slice(&labels(), "IPv4", &endpoints)).unwrap();
        assert_eq!(
            parsed.endpoints[0].addresses,
            ["10.1.0.3".parse::<IpAddr>().unwrap()]
        );
        let message = parsed.rejected[0].to_string();
        assert!(
            message.contains(why) && message.contains(address) && message.contains("web/nginx-multus-x7k2p"),
            "{message}"
        );
    }
}
