//! The ports of an endpoint: a Service's ports, resolved for one pod.
//!
//! Pure. Endpoints with equal ports share slices, so the ports are the key of a group.

use super::endpoint::EndpointKey;
use crate::objects::Pod;
use api::Family;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Endpoints that share ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The ports, in the Service's order.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
}

pub(super) type Groups = BTreeMap<PortGroup, Group>;

/// The ports of a pod as this Service's endpoint, in the Service's order. A named port the pod does not have is left out.
pub(super) fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(resolve(port, pod)?),
                protocol: Some(protocol(port).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        // The API server defaults an absent targetPort; 0 means absent.
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let named = pod
                .ports
                .iter()
                .find(|p| &*p.name == name && &*p.protocol == protocol(port))?;
            Some(named.number.into())
        }
    }
}

/// The Service's ports that no endpoint has, while there are endpoints: clients of such a port are rejected.
pub(super) fn missing<'a>(
    service: &'a Service,
    groups: &'a BTreeMap<Family, Groups>,
) -> impl Iterator<Item = &'a ServicePort> {
    let groups = groups.values().flat_map(BTreeMap::values);
    let used: Vec<_> = groups.filter(|group| !group.endpoints.is_empty()).collect();
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    all.filter(move |wanted| {
        let is_it = |port: &EndpointPort| {
            port.name.as_deref().unwrap_or_default() == wanted.name.as_deref().unwrap_or_default()
                && port.protocol.as_deref().unwrap_or("TCP") == protocol(wanted)
                && port.port.is_some()
        };
        !used.is_empty() && !used.iter().any(|group| group.ports.iter().any(is_it))
    })
}

/// Display name of a port: its name, or its number where it has none.
pub(super) fn port_title(port: &ServicePort) -> String {
    match port.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("port {name:?} ({})", protocol(port)),
        None => format!("port {} ({})", port.port, protocol(port)),
    }
}

/// Identity of a port list, independent of its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortGroup(Vec<(String, i32, String, String)>);

impl PortGroup {
    /// The group of a port list. Absent fields are their defaults, as other writers leave them out.
    pub(super) fn of(ports: &[EndpointPort]) -> Self {
        let mut key: Vec<_> = ports
            .iter()
            .map(|port| {
                let EndpointPort {
                    app_protocol,
                    name,
                    port,
                    protocol,
                } = port;
                (
                    name.clone().unwrap_or_default(),
                    port.unwrap_or_default(),
                    protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    app_protocol.clone().unwrap_or_default(),
                )
            })
            .collect();
        key.sort_unstable();
        Self(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::fixture::pod;
    use serde_json::json;

    fn service(ports: &serde_json::Value) -> Service {
        serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap()
    }

    fn resolved(ports: &serde_json::Value, pod: &Pod) -> Vec<(String, i32, String)> {
        endpoint_ports(&service(ports), pod)
            .into_iter()
            .map(|p| (p.name.unwrap(), p.port.unwrap(), p.protocol.unwrap()))
            .collect()
    }

    /// The archived controller's cases of GetEndpointPorts.
    #[test]
    fn get_endpoint_ports() {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP", "appProtocol": "example.com/custom"},
            {"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP", "appProtocol": "https"},
        ]);
        let pod = pod(1).named_port("https", "TCP", 443).build();
        let got = endpoint_ports(&service(&ports), &pod);
        let names: Vec<_> = got
            .iter()
            .map(|p| (p.name.as_deref().unwrap(), p.port.unwrap()))
            .collect();
        assert_eq!(names, [("http", 80), ("https", 443)]);
        assert_eq!(got[0].app_protocol.as_deref(), Some("example.com/custom"));
        assert_eq!(got[1].app_protocol.as_deref(), Some("https"));
    }

    #[test]
    fn a_name_is_looked_up_with_its_protocol() {
        let ports = json!([{"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}]);
        let pod = pod(1)
            .named_port("dns", "TCP", 1)
            .named_port("dns", "UDP", 2)
            .build();
        assert_eq!(resolved(&ports, &pod), [("dns".to_owned(), 2, "UDP".to_owned())]);
    }

    #[test]
    fn a_port_the_pod_does_not_name_is_left_out() {
        let ports = json!([{"name": "a", "port": 1, "targetPort": "missing"}, {"name": "b", "port": 2}]);
        assert_eq!(
            resolved(&ports, &pod(1).build()),
            [("b".to_owned(), 2, "TCP".to_owned())]
        );
    }

    #[test]
    fn several_protocols_may_share_a_number() {
        let ports = json!([{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"},
            {"name": "s", "port": 53, "protocol": "SCTP"}]);
        assert_eq!(resolved(&ports, &pod(1).build()).len(), 3);
    }

    #[test]
    fn a_group_is_the_same_in_any_order_and_form() {
        let group =
            |ports: serde_json::Value| PortGroup::of(&serde_json::from_value::<Vec<_>>(ports).unwrap());
        let one = group(
            json!([{"name": "a", "port": 1, "protocol": "TCP"}, {"name": "", "port": 2, "protocol": "UDP"}]),
        );
        let other = group(json!([{"port": 2, "protocol": "UDP"}, {"name": "a", "port": 1}]));
        assert_eq!(one, other);
        assert_ne!(one, group(json!([{"name": "a", "port": 1}])));
    }
}
