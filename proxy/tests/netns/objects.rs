//! Services and slices as users and the controller write them, and their plan for a pod.

use super::testbed::{Pod, address};
use api::Family;
use api::names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use rules::{Plan, PodRules, Protocol, Settings};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// A Service, and the slices that the controller writes for it.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Number of the service network.
    pub(crate) network: u8,
    /// Last part of its VIPs, one per family.
    pub(crate) number: u8,
    /// Last two parts of its VIPs instead, for more than 255 Services.
    pub(crate) address: Option<(u16, u16)>,
    /// Protocol, port, target port.
    pub(crate) ports: Vec<(Protocol, u16, u16)>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Merged into `spec`.
    pub(crate) spec: Value,
    /// Number of slices for its endpoints, per family.
    pub(crate) slices: usize,
    /// Time of the change that led to its slices.
    pub(crate) triggered: Option<Timestamp>,
}

/// An endpoint of a slice, without its address.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: u8,
    pub(crate) object: Value,
    /// Number of the network of its address, if not the Service's.
    pub(crate) network: Option<u8>,
}

/// An endpoint with these conditions.
pub(crate) fn endpoint(host: u8, conditions: &Value) -> Endpoint {
    Endpoint {
        host,
        object: json!({"conditions": conditions}),
        network: None,
    }
}

/// Ready endpoints.
pub(crate) fn ready(hosts: &[u8]) -> Vec<Endpoint> {
    let one = |host: &u8| {
        endpoint(
            *host,
            &json!({"ready": true, "serving": true, "terminating": false}),
        )
    };
    hosts.iter().map(one).collect()
}

/// Endpoints whose readiness probe fails.
pub(crate) fn unready(hosts: &[u8]) -> Vec<Endpoint> {
    let one = |host: &u8| {
        endpoint(
            *host,
            &json!({"ready": false, "serving": false, "terminating": false}),
        )
    };
    hosts.iter().map(one).collect()
}

impl Service {
    /// On network 1, with TCP 80 → 8080 and UDP 53 → 5353.
    pub(crate) fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            network: 1,
            number,
            address: None,
            ports: vec![(Protocol::Tcp, 80, 8080), (Protocol::Udp, 53, 5353)],
            endpoints: Vec::new(),
            spec: json!({}),
            slices: 1,
            triggered: None,
        }
    }

    pub(crate) fn ready(mut self, hosts: &[u8]) -> Self {
        self.endpoints = ready(hosts);
        self
    }

    pub(crate) fn ports(mut self, ports: &[(Protocol, u16, u16)]) -> Self {
        self.ports = ports.to_vec();
        self
    }

    pub(crate) fn vip(&self, family: Family) -> IpAddr {
        let (third, fourth) = self.address.unwrap_or_else(|| (0, self.number.into()));
        let text = match (family, third) {
            (Family::V4, _) => format!("172.30.{third}.{fourth}"),
            (Family::V6, 0) => format!("fd00:96::{fourth}"),
            (Family::V6, _) => format!("fd00:96::{third}:{fourth}"),
        };
        text.parse().unwrap()
    }

    pub(crate) fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(family), port)
    }

    /// The Service object, as a user writes it.
    pub(crate) fn object(&self) -> v1::Service {
        let ports: Vec<_> = self.ports.iter().map(|(protocol, port, _)| json!({"name": port_name(*protocol, *port), "port": port, "protocol": protocol_name(*protocol)})).collect();
        let mut object = json!({
            "metadata": {
                "name": self.name, "namespace": "web", "uid": self.uid,
                "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
                "annotations": {"k8s.v1.cni.cncf.io/service-network": format!("macvlan{}", self.network)},
            },
            "spec": {"clusterIPs": Family::ALL.map(|family| self.vip(family)), "ports": ports},
        });
        for (key, value) in self.spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    /// The slices, as the controller writes them.
    pub(crate) fn slice_objects(&self) -> Vec<EndpointSlice> {
        let share = self.endpoints.len().div_ceil(self.slices).max(1);
        let shares: Vec<&[Endpoint]> = self.endpoints.chunks(share).collect();
        let of = |family: Family| {
            shares
                .iter()
                .enumerate()
                .map(move |(n, share)| self.slice(family, n, share))
        };
        Family::ALL.into_iter().flat_map(of).collect()
    }

    fn slice(&self, family: Family, n: usize, endpoints: &[Endpoint]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let mut object = endpoint.object.clone();
                object["addresses"] = json!([address(
                    endpoint.network.unwrap_or(self.network),
                    family,
                    endpoint.host
                )]);
                object
            })
            .collect();
        let ports: Vec<_> = self.ports.iter().map(|(protocol, port, target)| json!({"name": port_name(*protocol, *port), "port": target, "protocol": protocol_name(*protocol)})).collect();
        let triggered = self.triggered.map(|at| at.to_string());
        let annotations = triggered.map(|at| json!({ LAST_CHANGE_TRIGGER_TIME_ANNOTATION: at }));
        serde_json::from_value(json!({
            "metadata": {
                "annotations": annotations,
                "name": format!("{}-multus-{}-{n}", self.name, family.to_string().to_lowercase()), "namespace": "web",
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io",
                    "kubernetes.io/service-name": self.name,
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": self.name, "uid": self.uid}],
            },
            "addressType": family.to_string(), "endpoints": endpoints, "ports": ports,
        }))
        .unwrap()
    }
}

fn port_name(protocol: Protocol, port: u16) -> String {
    format!("{protocol}-{port}")
}

fn protocol_name(protocol: Protocol) -> String {
    protocol.to_string().to_uppercase()
}

/// Rules of `client` for these Services, and the unserved ones.
pub(crate) fn plan(client: &Pod, services: &[Service]) -> Plan {
    plan_with(&Settings::default(), client, services)
}

/// Like [`plan`], on a node with these settings.
pub(crate) fn plan_with(settings: &Settings, client: &Pod, services: &[Service]) -> Plan {
    let objects: Vec<_> = services.iter().map(Service::object).collect();
    let slices: Vec<_> = services.iter().flat_map(Service::slice_objects).collect();
    rules::plan(settings, &objects, &slices, "web", &client.status)
}

/// Rules of `client` for these Services; asserts that all are served.
pub(crate) fn rules(client: &Pod, services: &[Service]) -> PodRules {
    let plan = plan(client, services);
    assert_eq!((plan.unserved, plan.shortcomings.len()), (vec![], 0));
    plan.rules
}
