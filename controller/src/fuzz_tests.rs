//! Fuzz tests of objects that tenants write: no panic, and never an address that may not be an endpoint.
//! `make fuzz` runs them for longer.

use crate::index::{Change, Event, Index};
use crate::objects::{NodeObject, PodObject, trim_service, trim_slice};
use crate::observe::observe;
use crate::reconcile::reconcile;
use crate::selector::Selector;
use crate::service_status::orphaned_slices::OrphanedSlices;
use crate::settings::Settings;
use api::names::{
    MANAGED_BY, MANAGED_BY_LABEL, NETWORK_STATUS_ANNOTATION, PROXY_NAME, PROXY_NAME_LABEL,
    SERVICE_NAME_LABEL, SERVICE_NETWORK_ANNOTATION,
};
use api::{NetworkRef, network_status};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use testbed::fuzz;

const STATUS: &str = r#"[{"name": "ovn-kubernetes", "interface": "eth0", "ips": ["10.128.0.7"], "default": true, "dns": {}},
    {"name": "shop/testnet1", "interface": "net1", "ips": ["10.1.1.2", "fd00:1::2"], "mac": "02:00:00:00:00:02", "dns": {}}]"#;

fn corpus() -> [Value; 4] {
    let service = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "web-uid", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {PROXY_NAME_LABEL: PROXY_NAME},
            "annotations": {SERVICE_NETWORK_ANNOTATION: "testnet1", "multusservice.cni.cncf.io/selector": "app in (web, api), !old"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "172.30.0.10", "clusterIPs": ["172.30.0.10", "fd00:96::a"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"},
            "publishNotReadyAddresses": false, "trafficDistribution": "PreferClose",
            "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}, {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"}],
        },
        "status": {"conditions": [], "loadBalancer": {}},
    });
    let pod = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "web-1-uid", "labels": {"app": "web"},
            "annotations": {NETWORK_STATUS_ANNOTATION: STATUS, "k8s.v1.cni.cncf.io/networks": "testnet1"}},
        "spec": {"nodeName": "node-1", "hostname": "web-1", "subdomain": "web",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": "10.128.0.7", "podIPs": [{"ip": "10.128.0.7"}], "hostIP": "192.168.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let slice = json!({
        "metadata": {
            "name": "web-multus-abcde", "namespace": "shop", "uid": "s", "resourceVersion": "1",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: "web"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "web-uid", "controller": true}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.1.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1", "zone": "a", "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop", "uid": "web-1-uid"}}],
    });
    let node = json!({
        "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    [service, pod, slice, node]
}

/// The object as the API server would admit it; `None` if it would reject it, or the object cannot be decoded.
fn index(objects: &[Value]) -> Option<Index> {
    let mut service: Service = serde_json::from_value(objects[0].clone()).ok()?;
    trim_service(&mut service);
    let pod: PodObject = serde_json::from_value(objects[1].clone()).ok()?;
    let mut slice: EndpointSlice = serde_json::from_value(objects[2].clone()).ok()?;
    trim_slice(&mut slice);
    let node: NodeObject = serde_json::from_value(objects[3].clone()).ok()?;
    let mut index = Index::new(Settings::default());
    index.update(Change::Node(Event::Applied(node.into())));
    index.update(Change::Node(Event::ListDone));
    index.update(Change::Service(Event::Applied(service)));
    index.update(Change::Service(Event::ListDone));
    index.update(Change::Slice(Event::Applied(slice)));
    index.update(Change::Slice(Event::ListDone));
    index.update(Change::Pod(Event::ListDone));
    index.update(Change::Pod(Event::Applied(pod.into())));
    Some(index)
}

#[test]
fn fuzz_objects_of_tenants() {
    fuzz::objects(&corpus(), |objects| {
        let Some(index) = index(objects) else {
            return;
        };
        for key in index.all_keys() {
            let observed = observe(&index, &OrphanedSlices::default(), &key);
            let decision = reconcile(&observed, &index.nodes, index.settings(), None);
            for endpoint in decision.slices.create.iter().flat_map(|slice| &slice.endpoints) {
                let address = endpoint.addresses[0].parse().unwrap();
                assert_eq!(api::address::check(address), Ok(()));
                assert!(
                    !index.nodes.has_address(address),
                    "the address of a node is an endpoint"
                );
            }
        }
    });
}

#[test]
fn fuzz_annotations_of_tenants() {
    let corpus = [
        STATUS,
        "testnet1",
        "shop/testnet1",
        "app=web,tier!=db",
        "app in (web, api), env notin (dev), !old, new",
    ];
    fuzz::text(&corpus, |text| {
        for status in network_status::parse(text).unwrap_or_default().statuses {
            assert!(status.addresses.len() <= network_status::MAX_ADDRESSES);
        }
        if let Ok(network) = NetworkRef::parse(text, "shop") {
            assert_eq!(
                NetworkRef::parse(&network.to_string(), "other").ok(),
                Some(network)
            );
        }
        if let Ok(selector) = Selector::parse(text) {
            selector.values().for_each(drop);
        }
    });
}
