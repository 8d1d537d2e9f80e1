//! The Service, pods and nodes of the planner's tests: the fixture of the archived multus-service controller's tests.

use super::{Input, SlicePlan, plan};
use crate::objects::{Attachment, Labels, NamedPort, Node, Nodes, Pod};
use crate::selector::Selector;
use crate::service_status::problem::Problem;
use crate::settings::Settings;
use crate::validate::Binding;
use api::NetworkRef;
use api::names::{PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NETWORK_ANNOTATION};
use api::network_status::Fault;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::sync::Arc;

/// Creation time of the fixture's Service.
pub(crate) const CREATED: &str = "2026-01-01T00:00:00Z";

/// A Service `shop/web` on network `shop/testnet1`, its pods and slices.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    pub service: Service,
    pub binding: Binding,
    pub pods: Vec<Arc<Pod>>,
    pub slices: Vec<Arc<EndpointSlice>>,
    pub nodes: Nodes,
    pub settings: Settings,
    pub trigger_time: Option<Timestamp>,
    writes: usize,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let service = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "web-uid", "creationTimestamp": CREATED,
                "labels": {PROXY_NAME_LABEL: PROXY_NAME}, "annotations": {SERVICE_NETWORK_ANNOTATION: "testnet1"},
            },
            "spec": {
                "clusterIP": "172.30.0.10", "ipFamilies": ["IPv4"], "selector": {"foo": "bar"},
                "ports": [{"name": "web", "port": 80, "targetPort": 80, "protocol": "TCP"}],
            },
        });
        let node = Node {
            name: "node-1".into(),
            zone: Some("us-central1-a".into()),
            takes_traffic: true,
            millicores: 4000,
            addresses: vec!["192.168.0.11".parse().unwrap()],
        };
        Self {
            service: serde_json::from_value(service).unwrap(),
            binding: Binding {
                network: NetworkRef::parse("testnet1", "shop").unwrap(),
                selector: Selector::parse("foo=bar").unwrap(),
                is_selectorless: false,
            },
            pods: Vec::new(),
            slices: Vec::new(),
            nodes: [node].into_iter().collect(),
            settings: Settings::default(),
            trigger_time: None,
            writes: 0,
        }
    }

    pub(crate) fn spec(&mut self, edit: impl FnOnce(&mut ServiceSpec)) -> &mut Self {
        edit(self.service.spec.as_mut().unwrap());
        self
    }

    pub(crate) fn pods(&mut self, pods: impl IntoIterator<Item = PodBuilder>) -> &mut Self {
        self.pods = pods.into_iter().map(|pod| Arc::new(pod.build())).collect();
        self
    }

    pub(crate) fn with_input<T>(&self, work: impl FnOnce(&Input<'_>) -> T) -> T {
        work(&Input {
            service: &self.service,
            binding: &self.binding,
            pods: &self.pods,
            slices: &self.slices,
            nodes: &self.nodes,
            trigger_time: self.trigger_time,
            settings: &self.settings,
        })
    }

    pub(crate) fn plan(&self) -> (SlicePlan, Vec<Problem>) {
        self.with_input(plan)
    }

    /// Plans, and does to the slices what an API server would.
    pub(crate) fn sync(&mut self) -> SlicePlan {
        let (plan, _) = self.plan();
        for slice in &plan.delete {
            let gone = self
                .slices
                .iter()
                .position(|s| s.metadata.uid == slice.metadata.uid)
                .expect("it exists");
            self.slices.remove(gone);
        }
        for slice in &plan.update {
            let at = self
                .slices
                .iter_mut()
                .find(|s| s.metadata.name == slice.metadata.name)
                .expect("it exists");
            assert_eq!(
                at.metadata.resource_version, slice.metadata.resource_version,
                "a stale update"
            );
            assert_eq!(at.address_type, slice.address_type, "addressType is immutable");
            let mut slice = slice.clone();
            self.writes += 1;
            slice.metadata.resource_version = Some(self.writes.to_string());
            *at = Arc::new(slice);
        }
        for slice in &plan.create {
            self.add_slice(slice.clone());
        }
        plan
    }

    /// Adds a slice as the API server would name it.
    pub(crate) fn add_slice(&mut self, mut slice: EndpointSlice) {
        self.writes += 1;
        let name = format!(
            "{}{:05}",
            slice.metadata.generate_name.as_deref().unwrap_or_default(),
            self.writes
        );
        slice.metadata.uid = Some(format!("{name}-uid"));
        slice.metadata.resource_version = Some(self.writes.to_string());
        slice.metadata.name.get_or_insert(name);
        self.slices.push(Arc::new(slice));
    }

    /// Number of endpoints per slice, in descending order.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> = self.slices.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }
}

/// A pod of the fixture, ready, on `node-1`, attached with `10.1.1.n`.
#[derive(Clone, Debug)]
pub(crate) struct PodBuilder(Pod);

/// The nth pod.
pub(crate) fn pod(n: usize) -> PodBuilder {
    let name = format!("pod{n}");
    PodBuilder(Pod {
        namespace: "shop".into(),
        uid: format!("{name}-uid").into(),
        name: name.into(),
        labels: Labels::from(Some([("foo".to_owned(), "bar".to_owned())].into())),
        created: Some(CREATED.parse().unwrap()),
        is_finished: false,
        has_sandbox: true,
        is_on_host_network: false,
        is_terminating: false,
        is_ready: true,
        ready_changed: None,
        node: Some("node-1".into()),
        hostname: None,
        subdomain: None,
        ports: Box::default(),
        attachments: Ok(Box::default()),
        faults: Box::default(),
    })
    .on("shop/testnet1", &[&format!("10.1.{}.{}", 1 + n / 250, n % 250)])
}

impl PodBuilder {
    pub(crate) fn build(self) -> Pod {
        self.0
    }

    pub(crate) fn on(mut self, network: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.0.attachments = Ok(Box::new([Attachment {
            network: network.into(),
            addresses,
        }]));
        self
    }

    /// One more address than it has, which cannot be read.
    pub(crate) fn faulty(mut self, network: &str) -> Self {
        self.0.faults = [Fault::Address {
            network: network.to_owned(),
            address: "<nil>".to_owned(),
        }]
        .into();
        self
    }

    pub(crate) fn malformed(mut self) -> Self {
        self.0.attachments = Err("annotation k8s.v1.cni.cncf.io/network-status is not JSON".into());
        self
    }

    pub(crate) fn ready(mut self, ready: bool) -> Self {
        self.0.is_ready = ready;
        self
    }

    pub(crate) fn ready_since(mut self, at: &str) -> Self {
        self.0.ready_changed = Some(at.parse().unwrap());
        self
    }

    pub(crate) fn terminating(mut self) -> Self {
        self.0.is_terminating = true;
        self
    }

    pub(crate) fn on_host_network(mut self) -> Self {
        self.0.is_on_host_network = true;
        self.0.attachments = Ok(Box::default());
        self
    }

    pub(crate) fn finished(mut self) -> Self {
        self.0.is_finished = true;
        self
    }

    pub(crate) fn without_sandbox(mut self) -> Self {
        self.0.has_sandbox = false;
        self
    }

    pub(crate) fn created(mut self, at: &str) -> Self {
        self.0.created = Some(at.parse().unwrap());
        self
    }

    pub(crate) fn node(mut self, name: &str) -> Self {
        self.0.node = Some(name.into());
        self
    }

    pub(crate) fn named_port(mut self, name: &str, protocol: &str, number: u16) -> Self {
        let mut ports = self.0.ports.into_vec();
        ports.push(NamedPort {
            name: name.into(),
            protocol: protocol.into(),
            number,
        });
        self.0.ports = ports.into();
        self
    }
}
