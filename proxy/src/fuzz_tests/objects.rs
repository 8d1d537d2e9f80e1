//! Services, slices and pods as tenants and the API server may have them, and the rules that follow.

use crate::backend::iptables::render::{Change, Table, whole};
use crate::index::NodePod;
use api::Family;
use api::names::{
    MANAGED_BY, MANAGED_BY_LABEL, NETWORK_STATUS_ANNOTATION, PROXY_NAME, PROXY_NAME_LABEL,
    SERVICE_NAME_LABEL, SERVICE_NETWORK_ANNOTATION,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rules::{Delta, Plan, Settings, plan};
use serde_json::{Value, json};
use testbed::fuzz;

/// A Service of both families, a slice of each, a pod.
pub(crate) fn corpus() -> [Value; 4] {
    let service = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "web-uid",
            "labels": {PROXY_NAME_LABEL: PROXY_NAME}, "annotations": {SERVICE_NETWORK_ANNOTATION: "testnet1"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "172.30.0.10", "clusterIPs": ["172.30.0.10", "fd00:96::a"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
            "internalTrafficPolicy": "Cluster", "trafficDistribution": "PreferClose",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "sctp", "port": 9, "protocol": "SCTP"}],
        },
    });
    let slice = |family: &str, addresses: [&str; 2]| {
        let endpoint = |address: &str| {
            json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "node-1", "zone": "a", "hints": {"forZones": [{"name": "a"}]}})
        };
        json!({
            "metadata": {
                "name": format!("web-multus-{family}"), "namespace": "shop",
                "labels": {MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: "web"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "web-uid"}],
            },
            "addressType": family,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
            "endpoints": addresses.map(endpoint),
        })
    };
    let status = json!([
        {"name": "ovn-kubernetes", "interface": "eth0", "ips": ["10.128.0.7"], "default": true},
        {"name": "shop/testnet1", "interface": "net1", "ips": ["10.1.0.2", "fd00:1::2"], "mac": "02:00:00:00:00:02",
            "device-info": {"type": "pci", "version": "1.0.0", "pci": {"pci-address": "0000:18:02.5"}}},
    ]);
    let pod = json!({
        "metadata": {"name": "client", "namespace": "shop", "uid": "client-uid",
            "annotations": {NETWORK_STATUS_ANNOTATION: status.to_string()}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "command": ["sleep"]}]},
        "status": {"phase": "Running", "podIP": "10.128.0.7", "podIPs": [{"ip": "10.128.0.7"}]},
    });
    [
        service,
        slice("IPv4", ["10.1.0.3", "10.1.0.4"]),
        slice("IPv6", ["fd00:1::3", "fd00:1::4"]),
        pod,
    ]
}

/// Returns the rules of the pod; `None` when an object cannot be decoded.
pub(crate) fn planned(objects: &[Value]) -> Option<Plan> {
    let service: Service = serde_json::from_value(objects[0].clone()).ok()?;
    let slice = |object: &Value| serde_json::from_value::<EndpointSlice>(object.clone()).ok();
    let slices = [slice(&objects[1])?, slice(&objects[2])?];
    let pod: Pod = serde_json::from_value(objects[3].clone()).ok()?;
    let NodePod::Attached(pod) = NodePod::parse(&pod)? else {
        return None;
    };
    let attachments = pod.attachments.ok()?;
    let namespace = &pod.name.namespace;
    Some(plan(
        &Settings::default(),
        &[service],
        &slices,
        namespace,
        &attachments,
    ))
}

#[test]
fn the_corpus_is_served() {
    let plan = planned(&corpus()).unwrap();
    assert_eq!(
        (plan.rules.vip_count(), plan.unserved, plan.shortcomings.len()),
        (2, Vec::new(), 0)
    );
    let routes = plan.rules.routes();
    assert_eq!(routes.len(), 2);
}

#[test]
fn fuzz_objects_of_tenants() {
    fuzz::objects(&corpus(), |objects| {
        let Some(plan) = planned(objects) else {
            return;
        };
        let delta = Delta::from_nothing(&plan.rules);
        for ((_, _), change) in &delta.ports {
            for endpoint in change.new.iter().flat_map(|new| new.endpoints) {
                assert_eq!(api::address::check(endpoint.ip()), Ok(()));
            }
        }
        for (table, family) in Table::ALL
            .iter()
            .flat_map(|table| Family::ALL.map(|family| (*table, family)))
        {
            let text = Change::replace([], whole(&delta, table, family, true)).text(table);
            let is_command = |line: &str| {
                [":", "*", "-A ", "-I ", "-D ", "-X ", "COMMIT"]
                    .iter()
                    .any(|start| line.starts_with(start))
            };
            assert!(
                text.lines().all(is_command),
                "an object adds lines to iptables-restore: {text}"
            );
        }
    });
}
