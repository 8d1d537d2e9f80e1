//! The proxy's view of a cluster with many Services, and the pods of one node, driven through the same index and `apply` as in production.

use crate::matrix::BackendKind;
use crate::testbed::{Pod, Testbed};
use api::ObjectName;
use api::names::{
    MANAGED_BY, MANAGED_BY_LABEL, NETWORK_STATUS_ANNOTATION, PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NAME_LABEL,
};
use k8s_openapi::api::core::v1;
use proxy::backend::{Backend, KnownRules};
use proxy::index::{Index, LocalPod, NodePod};
use proxy::netns::Netns;
use proxy::netns::apply::{Applied, Wanted, write};
use proxy::sync::{IN_MEMORY_WORKERS, WORKERS};
use rules::{PodRules, ServedService, Slice};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

/// VIP of Service number `n`.
pub(crate) fn vip(n: usize) -> Ipv4Addr {
    let base = u32::from(Ipv4Addr::new(172, 30, 0, 10));
    Ipv4Addr::from(base + u32::try_from(n).unwrap())
}

/// Host numbers of the endpoints of every Service.
pub(crate) const ENDPOINTS: [u8; 3] = [201, 202, 203];

/// Endpoint address number `n` out of a large range on the same network.
pub(crate) fn far(n: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 16, 0)) + u32::from(n))
}

/// The client pods of a node.
pub(crate) struct Fixture {
    pub(crate) index: Index,
    backend: Box<dyn Backend>,
    pods: Vec<Mutex<PodState>>,
    /// Protocol of every Service port.
    protocol: &'static str,
    // Dropped after the open namespace files.
    pub(crate) testbed: Testbed,
}

struct PodState {
    local: LocalPod,
    netns: Netns,
    held: KnownRules<PodRules>,
    foreign_routes: Option<BTreeSet<IpAddr>>,
}

impl Fixture {
    /// Creates `pods` pods without rules, and `services` Services with three endpoints each.
    pub(crate) fn new(kind: BackendKind, pods: u8, services: usize) -> Self {
        Self::with_endpoints(kind, pods, services, &ENDPOINTS)
    }

    /// Like [`Self::new`], with these endpoints.
    pub(crate) fn with_endpoints(kind: BackendKind, pods: u8, services: usize, hosts: &[u8]) -> Self {
        Self::of(kind, pods, services, hosts, "TCP")
    }

    /// Like [`Self::new`], with ports of this protocol.
    pub(crate) fn of_protocol(kind: BackendKind, pods: u8, services: usize, protocol: &'static str) -> Self {
        Self::of(kind, pods, services, &ENDPOINTS, protocol)
    }

    fn of(kind: BackendKind, pods: u8, services: usize, hosts: &[u8], protocol: &'static str) -> Self {
        let mut testbed = Testbed::new();
        let pods: Vec<_> = (2..=pods + 1).map(|host| pod_state(&testbed.pod(host))).collect();
        let mut fixture = Self {
            index: Index::default(),
            backend: kind.backend(),
            pods: pods.into_iter().map(Mutex::new).collect(),
            protocol,
            testbed,
        };
        for n in 0..services {
            fixture.create_service(n, hosts);
        }
        for pod in &fixture.pods {
            let local = pod.lock().unwrap().local.clone();
            fixture.index.apply_pod(NodePod::Attached(local));
        }
        fixture
    }

    /// Adds Service `n` and its slice.
    pub(crate) fn create_service(&mut self, n: usize, hosts: &[u8]) {
        let service = ServedService::parse(&serde_json::from_value(service(n, self.protocol)).unwrap());
        self.index.apply_service(&name(n), service);
        self.set_endpoints(n, hosts);
    }

    /// Programs one pod with the current state, as the proxy does when changes arrive faster than it can write them.
    pub(crate) fn sync_one(&mut self, pod: usize) {
        self.index.take_stale();
        self.pods[pod]
            .lock()
            .unwrap()
            .sync(&self.index, self.backend.as_ref());
    }

    /// Updates the slice of Service `n`.
    pub(crate) fn set_endpoints(&mut self, n: usize, hosts: &[u8]) {
        let addresses = hosts.iter().map(|host| Ipv4Addr::new(10, 1, 0, *host));
        self.set_addresses(n, &addresses.collect::<Vec<_>>());
    }

    /// Like [`Self::set_endpoints`], with full addresses.
    pub(crate) fn set_addresses(&mut self, n: usize, addresses: &[Ipv4Addr]) {
        let slice = serde_json::from_value(slice(n, addresses, self.protocol)).unwrap();
        self.index.apply_slice(Slice::parse(&slice).unwrap());
    }

    /// Deletes Service `n` and its slice.
    pub(crate) fn delete_service(&mut self, n: usize) {
        self.index.delete_service(&name(n));
        let slice = serde_json::from_value(slice(n, &[], self.protocol)).unwrap();
        self.index.delete_slice(&Slice::parse(&slice).unwrap().name);
    }

    /// Handles an event as the proxy does: plans, and applies in every affected pod.
    pub(crate) fn sync(&mut self) {
        let stale = self.index.take_stale();
        let (index, backend) = (&self.index, self.backend.as_ref());
        let concerned: Vec<&Mutex<PodState>> = self
            .pods
            .iter()
            .filter(|pod| stale.contains(&pod.lock().unwrap().local.uid))
            .collect();
        assert_eq!(concerned.len(), self.pods.len(), "the change concerns every pod");
        let is_empty = |pod: &&Mutex<PodState>| matches!(pod.lock().unwrap().held, KnownRules::Nothing);
        let workers = if concerned.iter().any(is_empty) {
            IN_MEMORY_WORKERS
        } else {
            WORKERS
        };
        let share = concerned.len().div_ceil(workers);
        std::thread::scope(|scope| {
            for pods in concerned.chunks(share) {
                scope.spawn(move || {
                    for pod in pods {
                        pod.lock().unwrap().sync(index, backend);
                    }
                });
            }
        });
    }

    /// Runs `work` in a pod's namespace.
    pub(crate) fn run<T: Send>(&self, pod: usize, work: impl FnOnce() -> T + Send) -> T {
        self.pods[pod].lock().unwrap().netns.run(work).unwrap()
    }

    pub(crate) fn pods(&self) -> usize {
        self.pods.len()
    }
}

impl PodState {
    fn sync(&mut self, index: &Index, backend: &dyn Backend) {
        let (rules, _) = index.plan(&self.local);
        let wanted = Wanted {
            rules,
            addresses: self.local.addresses.clone(),
            foreign_routes: self.foreign_routes.take(),
        };
        let held = &self.held;
        let applied: Applied = self.netns.run(|| write(backend, held, &wanted)).unwrap().unwrap();
        assert!(applied.written, "there was something to write");
        self.held = KnownRules::Exactly(applied.rules);
        self.foreign_routes = Some(applied.foreign_routes);
    }
}

fn pod_state(pod: &Pod) -> PodState {
    let status: Vec<Value> = pod
        .status
        .iter()
        .map(|status| json!({"name": status.network, "interface": status.interface, "ips": status.addresses}))
        .collect();
    let object: v1::Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("client-{}", pod.host), "namespace": "web", "uid": format!("uid-{}", pod.host),
            "annotations": {NETWORK_STATUS_ANNOTATION: Value::from(status).to_string()},
        },
        "spec": {"containers": []},
    }))
    .unwrap();
    PodState {
        local: LocalPod::parse(&object).unwrap(),
        netns: pod.open(),
        held: KnownRules::Nothing,
        foreign_routes: None,
    }
}

fn name(n: usize) -> ObjectName {
    ObjectName {
        namespace: "web".to_owned(),
        name: format!("svc-{n}"),
    }
}

fn service(n: usize, protocol: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("svc-{n}"), "namespace": "web", "uid": format!("uid-{n}"),
            "labels": {PROXY_NAME_LABEL: PROXY_NAME},
            "annotations": {"k8s.v1.cni.cncf.io/service-network": "macvlan1"},
        },
        "spec": {"clusterIPs": [vip(n)], "ports": [{"name": "http", "port": 80, "protocol": protocol}]},
    })
}

fn slice(n: usize, addresses: &[Ipv4Addr], protocol: &str) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {
            "name": format!("svc-{n}-multus-x"), "namespace": "web",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: format!("svc-{n}")},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": format!("svc-{n}"), "uid": format!("uid-{n}")}],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": protocol}],
    })
}
