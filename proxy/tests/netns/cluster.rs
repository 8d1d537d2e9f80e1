//! Services and slices as users and the controller would write them, planned for a pod.

use super::bed::Pod;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rules::PodRules;
use serde_json::json;

/// VIPs of Service `web/nginx`, with TCP 80 → 8080 and UDP 53 → 5353.
pub(crate) const NGINX: [&str; 2] = ["172.30.0.10", "fd00:96::a"];
/// VIP of Service `web/empty`, which has no endpoints.
pub(crate) const EMPTY: &str = "172.30.0.11";

/// Endpoints of nginx: a host, and whether it is ready.
pub(crate) type Endpoints<'a> = &'a [(u8, bool)];

/// What `client` must hold for both Services.
pub(crate) fn rules(client: &Pod, endpoints: Endpoints<'_>) -> PodRules {
    let services = [service("nginx", &NGINX), service("empty", &[EMPTY])];
    plan(client, &services, endpoints)
}

/// What it must hold when there is no Service.
pub(crate) fn no_rules() -> PodRules {
    PodRules::default()
}

fn plan(client: &Pod, services: &[Service], endpoints: Endpoints<'_>) -> PodRules {
    let slices = [
        slice(
            "IPv4",
            endpoints
                .iter()
                .map(|(host, ready)| (format!("10.1.0.{host}"), *ready)),
        ),
        slice(
            "IPv6",
            endpoints
                .iter()
                .map(|(host, ready)| (format!("fd00:1::{host}"), *ready)),
        ),
    ];
    let plan = rules::plan(services, &slices, &client.status());
    assert_eq!((plan.unserved, plan.shortcomings.len()), (vec![], 0));
    plan.rules
}

fn service(name: &str, vips: &[&str]) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "web", "uid": format!("uid-{name}"),
            "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
            "annotations": {"k8s.v1.cni.cncf.io/service-network": "macvlan1"},
        },
        "spec": {"clusterIPs": vips, "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    }))
    .unwrap()
}

fn slice(family: &str, endpoints: impl Iterator<Item = (String, bool)>) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("nginx-multus-{}", family.to_lowercase()), "namespace": "web",
            "labels": {"endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io", "kubernetes.io/service-name": "nginx"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "nginx", "uid": "uid-nginx"}],
        },
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
    }))
    .unwrap()
}
