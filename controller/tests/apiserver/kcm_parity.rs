//! Managed slices equal kube-controller-manager's except for the addresses, field by field.

use crate::bed::{Controller, Fixture, merge};
use crate::kube_controller_manager::{both_until, server_with_twin};
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const CREATED: &str = "2026-01-01T00:00:00Z";

/// Pod `web-<n>` with addresses of both families on both networks; `change` is merged over it.
async fn pod(fixture: &Fixture, n: u8, node: &str, change: Value) -> Result<()> {
    let status = fixture.status(&[&format!("10.1.0.1{n}"), &format!("fd00:1::1{n}")]);
    let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]);
    let sidecar = json!({"name": "sidecar", "image": "localhost/none", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]});
    let mut pod = json!({
        "metadata": {"name": format!("web-{n}"), "labels": {"app": "web"}, "annotations": {names::NETWORK_STATUS_ANNOTATION: status}},
        "spec": {"nodeName": node, "initContainers": [sidecar], "containers": [{"name": "c", "image": "localhost/none", "ports": ports}]},
    });
    merge(&mut pod, change);
    let pods = fixture.api::<Pod>();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    Ok(())
}

async fn status(fixture: &Fixture, n: u8, phase: &str, ready: &str, since: &str) -> Result<()> {
    let (four, six) = (format!("10.128.0.1{n}"), format!("fd00:128::1{n}"));
    let status = json!({"status": {"phase": phase, "podIP": four, "podIPs": [{"ip": four}, {"ip": six}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]}});
    let pods = fixture.api::<Pod>();
    pods.patch_status(
        &format!("web-{n}"),
        &PatchParams::default(),
        &Patch::Merge(&status),
    )
    .await?;
    Ok(())
}

/// One pod of each kind.
async fn pods(fixture: &Fixture) -> Result<()> {
    let named = json!({"spec": {"hostname": "named", "subdomain": "headless"}});
    let other_number = json!({"spec": {"containers": [{"name": "c", "image": "localhost/none", "ports": [{"name": "http", "containerPort": 9999}]}]}});
    for (n, node, change, phase, ready) in [
        (0, "node-1", named, "Running", "True"),
        (1, "node-2", json!({}), "Running", "True"),
        (2, "node-1", json!({}), "Running", "False"),
        (3, "node-1", json!({}), "Running", "True"),
        (4, "node-1", json!({}), "Succeeded", "False"),
        (5, "late", json!({}), "Running", "True"),
        (6, "node-2", other_number, "Running", "True"),
    ] {
        pod(fixture, n, node, change).await?;
        status(fixture, n, phase, ready, CREATED).await?;
    }
    // It has no address on the cluster network, so it has no sandbox.
    pod(fixture, 7, "node-1", json!({})).await?;
    // No kubelet confirms, so it stays terminating.
    fixture
        .api::<Pod>()
        .delete("web-3", &DeleteParams::default())
        .await?;
    Ok(())
}

/// Services of the same pods, each with how many endpoints it has before its last pod's Node is known, and after.
fn services() -> Vec<(&'static str, Value, usize, usize)> {
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "sigtran", "port": 2905, "protocol": "SCTP"},
        {"name": "metrics", "port": 9090, "targetPort": "metrics"},
        {"name": "missing", "port": 99, "targetPort": "missing"},
    ]);
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        (
            "plain",
            json!({"metadata": {"labels": {"team": "network"}}}),
            5,
            6,
        ),
        ("ports", spec(json!({"ports": ports})), 5, 6),
        ("published", spec(json!({"publishNotReadyAddresses": true})), 6, 6),
        ("headless", spec(json!({"clusterIP": "None"})), 5, 6),
        (
            "dual",
            spec(json!({"ipFamilyPolicy": "RequireDualStack"})),
            10,
            12,
        ),
        (
            "zone",
            spec(json!({"trafficDistribution": "PreferSameZone"})),
            5,
            6,
        ),
        ("close", spec(json!({"trafficDistribution": "PreferClose"})), 5, 6),
        (
            "node",
            spec(json!({"trafficDistribution": "PreferSameNode"})),
            5,
            6,
        ),
        ("no-pods", spec(json!({"selector": {"app": "no-pods"}})), 0, 0),
    ]
}

/// The fields of slices that consumers read, without the addresses and the managed-by value.
fn content(slices: &[EndpointSlice]) -> Vec<Value> {
    let mut all: Vec<_> = slices.iter().cloned().map(content_of).collect();
    all.sort_by_key(ToString::to_string);
    all
}

fn content_of(mut slice: EndpointSlice) -> Value {
    for endpoint in &mut slice.endpoints {
        endpoint.addresses.clear();
    }
    slice.endpoints.sort_by_key(|endpoint| {
        endpoint
            .target_ref
            .as_ref()
            .and_then(|target| target.name.clone())
    });
    // kube-controller-manager orders them by a hash.
    slice
        .ports
        .get_or_insert_default()
        .sort_by_key(|port| port.name.clone());
    let mut meta = slice.metadata;
    let labels = meta.labels.get_or_insert_default();
    labels.remove(names::MANAGED_BY_LABEL);
    labels.remove(names::NETWORK_LABEL);
    meta.annotations
        .get_or_insert_default()
        .remove(names::NETWORK_NAME_ANNOTATION);
    for owner in meta.owner_references.get_or_insert_default() {
        owner.block_owner_deletion = None;
    }
    json!({
        "labels": meta.labels, "annotations": meta.annotations, "owners": meta.owner_references,
        "type": slice.address_type, "ports": slice.ports, "endpoints": slice.endpoints,
    })
}

fn size(content: &[Value]) -> usize {
    let endpoints = content.iter().filter_map(|slice| slice["endpoints"].as_array());
    endpoints.map(Vec::len).sum()
}

fn trigger_times(content: &[Value]) -> Vec<Option<&str>> {
    let annotation = names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION;
    let times = content
        .iter()
        .map(|slice| slice["annotations"][annotation].as_str());
    times.collect()
}

async fn late_node(fixture: &Fixture) -> Result<()> {
    let node = json!({"metadata": {"name": "late", "labels": {"topology.kubernetes.io/zone": "zone-c"}}});
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd, kube-apiserver and kube-controller-manager: make test-apiserver"]
async fn slices_are_those_of_kube_controller_manager_but_for_the_addresses() -> Result<()> {
    let (server, kubeconfig) = server_with_twin().await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "twin", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "twin").await?;
    fixture.default_account().await?;
    pods(&fixture).await?;
    // Both have seen all pods before the first Service counts: what is seen later has another time.
    fixture
        .service("seen", json!({"spec": {"selector": {"app": "web"}}}))
        .await?;
    let has_all = |content: &Vec<Value>| {
        let endpoints = content.first().map(|slice| &slice["endpoints"]);
        endpoints.is_some_and(|all| all[3]["conditions"]["terminating"] == true && all[4].is_object())
    };
    both_until(&fixture, "seen", content, has_all).await?;
    for (name, mut service, ..) in services() {
        let selector = json!({"spec": {"selector": {"app": "web"}}});
        let chosen = std::mem::replace(&mut service, selector);
        merge(&mut service, chosen);
        fixture.service(name, service).await?;
    }
    for (name, _, before, _) in services() {
        let created = fixture
            .api::<Service>()
            .get(name)
            .await?
            .metadata
            .creation_timestamp;
        let created = created.map(|time| time.0.to_string());
        let is_first = |content: &Vec<Value>| {
            let times = trigger_times(content);
            size(content) == before
                && times.iter().all(|time| *time == created.as_deref())
                && !times.is_empty()
        };
        both_until(&fixture, name, content, is_first).await?;
    }

    late_node(&fixture).await?;
    for (name, _, _, after) in services() {
        // kube-controller-manager takes the zone of an endpoint that it published without its Node at the Service's next change.
        if name == "published" {
            let has_zone = |slices: &[EndpointSlice]| {
                let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
                endpoints.into_iter().any(|e| e.zone.as_deref() == Some("zone-c"))
            };
            fixture
                .slices_until(name, "the zone of the late node", has_zone)
                .await?;
        } else {
            both_until(&fixture, name, content, |content| size(content) == after).await?;
        }
    }

    let since = "2026-01-02T03:04:05Z";
    status(&fixture, 2, "Running", "True", since).await?;
    let is_exact = |content: &Vec<Value>| trigger_times(content).contains(&Some(since));
    both_until(&fixture, "plain", content, is_exact).await?;

    // A change without a timestamp removes the older trigger time.
    let label = json!({"metadata": {"labels": {"team": "storage"}}});
    fixture.patch::<Service>("plain", label).await?;
    let is_relabelled = |content: &Vec<Value>| {
        content.iter().all(|slice| slice["labels"]["team"] == "storage")
            && trigger_times(content).iter().all(Option::is_none)
    };
    both_until(&fixture, "plain", content, is_relabelled).await
}
