//! Nodes, pods and slices about as large as real ones. Pure.

use api::names;
use serde_json::{Value, json};

const SINCE: &str = "2026-01-01T00:00:00Z";

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The nth address of `10.0.0.0/8`, without .0 and .255.
pub(crate) fn address(n: usize) -> String {
    format!("10.{}.{}.{}", 1 + n / 62_500, n / 250 % 250, 1 + n % 250)
}

fn metadata(namespace: Option<&str>, name: &str, kind: u8, number: usize) -> Value {
    let mut metadata = json!({"name": name, "uid": format!("00000000-0000-4000-80{kind:02x}-{number:012x}"), "creationTimestamp": SINCE});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// A Node of about 15 kB, most of it names of images, as a kubelet reports it.
pub(crate) fn node(number: usize) -> (String, Value) {
    let name = node_name(number);
    let image = |n: usize| {
        let digest = format!("{n:064x}");
        json!({"names": [format!("registry.example.com/team-{n}/application@sha256:{digest}"),
            format!("registry.example.com/team-{n}/application:v1.2.{n}")], "sizeBytes": 100_000_000 + n})
    };
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "KubeletHasIt",
        "message": "kubelet has what it needs", "lastHeartbeatTime": SINCE, "lastTransitionTime": SINCE})
    };
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata(None, &name, 1, number), "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": format!("192.168.{}.{}", number / 250, 1 + number % 250)},
                {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "allocatable": {"cpu": "63", "memory": "250Gi", "pods": "110"},
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False"), condition("Ready", "True")],
            "images": (0..50).map(image).collect::<Vec<_>>(),
        },
    });
    node["metadata"]["labels"] = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": format!("zone-{}", number % 3)});
    (format!("/registry/minions/{name}"), node)
}

/// Node and Service of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) network: &'a str,
    pub(crate) node: usize,
    pub(crate) app: &'a str,
}

pub(crate) fn network_status(place: &Place<'_>, address: &str) -> String {
    json!([
        {"name": "cluster-net", "interface": "eth0", "ips": ["10.128.0.5"], "default": true, "dns": {}},
        {"name": format!("{}/{}", place.namespace, place.network), "interface": "net1", "ips": [address], "dns": {}},
    ])
    .to_string()
}

pub(crate) fn pod_status() -> Value {
    json!({"phase": "Running", "podIP": "10.128.0.5", "podIPs": [{"ip": "10.128.0.5"}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": SINCE}]})
}

/// A pod as it is created: with about as much in it as one of a Deployment has.
pub(crate) fn new_pod(place: &Place<'_>, name: &str) -> Value {
    let variable = |n: usize| json!({"name": format!("SETTING_{n}"), "value": "a value of ordinary length"});
    let container = json!({
        "name": "server", "image": "registry.example.com/team/server:1.2.3",
        "env": (0..12).map(variable).collect::<Vec<_>>(), "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": place.namespace, "annotations": {"k8s.v1.cni.cncf.io/networks": place.network},
            "labels": {"app": place.app, "app.kubernetes.io/version": "1.2.3", "pod-template-hash": "75675f5897", "team": "network"}},
        "spec": {"nodeName": node_name(place.node), "terminationGracePeriodSeconds": 30, "containers": [container]},
    })
}

/// A pod that runs and is ready.
pub(crate) fn pod(place: &Place<'_>, number: usize) -> (String, Value) {
    let name = format!("{}-{number}", place.app);
    let mut pod = new_pod(place, &name);
    let Value::Object(more) = metadata(Some(place.namespace), &name, 2, number) else {
        return (name, pod);
    };
    for (key, value) in more {
        pod["metadata"][key] = value;
    }
    pod["metadata"]["annotations"][names::NETWORK_STATUS_ANNOTATION] =
        json!(network_status(place, &address(number)));
    pod["status"] = pod_status();
    (format!("/registry/pods/{}/{name}", place.namespace), pod)
}

/// A slice of an ordinary Service, as Kubernetes' own controller writes it.
pub(crate) fn ordinary_slice(
    namespace: &str,
    service: usize,
    endpoints: usize,
    nodes: usize,
) -> (String, Value) {
    let name = format!("ordinary-{service}-x7k2p");
    let endpoint = |n: usize| {
        let (pod, number) = (format!("ordinary-{service}-{n}"), service * endpoints + n);
        let node = number % nodes;
        json!({"addresses": [address(number)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node_name(node), "zone": format!("zone-{}", node % 3),
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": format!("00000000-0000-4000-8002-{number:012x}")}})
    };
    let mut metadata = metadata(Some(namespace), &name, 3, service);
    metadata["labels"] = json!({names::SERVICE_NAME_LABEL: format!("ordinary-{service}"),
        names::MANAGED_BY_LABEL: "endpointslice-controller.k8s.io"});
    metadata["generateName"] = json!(format!("ordinary-{service}-"));
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>()});
    (format!("/registry/endpointslices/{namespace}/{name}"), slice)
}
