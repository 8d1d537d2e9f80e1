//! Slices that exist when the controller starts: adopted, filled, recycled or replaced, with the fewest writes.

use std::collections::BTreeMap;

use crate::bed::{Controller, Scene};
use crate::leaving::own_server;
use anyhow::Result;
use api::names;
use e2e::apiserver::{Apiserver, Options};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use serde_json::{Value, json};

/// A row of the Go original's reconciler tests that is about API calls.
struct Row {
    name: &'static str,
    /// Sizes of the slices that exist; they hold the first pods, with this target port and for this owner.
    existing: &'static [usize],
    port: u16,
    is_own: bool,
    pods: usize,
    /// Sizes afterwards, biggest first; then creates, updates, deletes.
    sizes: &'static [usize],
    writes: (usize, usize, usize),
}

const ROWS: [Row; 8] = [
    Row {
        name: "many-pods",
        existing: &[],
        port: 8080,
        is_own: true,
        pods: 250,
        sizes: &[100, 100, 50],
        writes: (3, 0, 0),
    },
    Row {
        name: "some-preexisting",
        existing: &[62, 61],
        port: 8080,
        is_own: true,
        pods: 250,
        sizes: &[100, 89, 61],
        writes: (1, 1, 0),
    },
    Row {
        name: "worse-allocation",
        existing: &[74, 74],
        port: 8080,
        is_own: true,
        pods: 300,
        sizes: &[100, 74, 74, 52],
        writes: (2, 0, 0),
    },
    Row {
        name: "recycling",
        existing: &[30; 10],
        port: 8081,
        is_own: true,
        pods: 300,
        sizes: &[100, 100, 100],
        writes: (0, 3, 7),
    },
    Row {
        name: "adopted",
        existing: &[30; 10],
        port: 8080,
        is_own: true,
        pods: 300,
        sizes: &[30; 10],
        writes: (0, 0, 0),
    },
    Row {
        name: "update-packing",
        existing: &[80, 20],
        port: 8080,
        is_own: true,
        pods: 90,
        sizes: &[80, 10],
        writes: (0, 1, 0),
    },
    Row {
        name: "recreation",
        existing: &[5],
        port: 8080,
        is_own: false,
        pods: 5,
        sizes: &[5],
        writes: (1, 0, 1),
    },
    Row {
        name: "placeholder",
        existing: &[5],
        port: 8080,
        is_own: true,
        pods: 0,
        sizes: &[0],
        writes: (0, 1, 0),
    },
];

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn existing_slices_are_reused_with_the_fewest_writes() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let mut scenes = Vec::new();
    for row in &ROWS {
        let scene = Scene::new(&server, row.name).await?;
        prepare_row(&scene, row).await?;
        scenes.push(scene);
    }
    let controller = Controller::start(&kubeconfig, server.folder(), "placement", &[])?;
    controller.wait_ready().await?;
    for (scene, row) in scenes.iter().zip(&ROWS) {
        scene.accepted_until("web", "True", "Served").await?;
        let sizes = |slices: &[EndpointSlice]| {
            let mut sizes: Vec<_> = slices.iter().map(|slice| slice.endpoints.len()).collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            sizes
        };
        scene
            .slices_until("web", row.name, |slices| sizes(slices) == row.sizes)
            .await?;
        assert_eq!(writes(&server, &scene.namespace)?, row.writes, "{}", row.name);
    }
    Ok(())
}

async fn prepare_row(scene: &Scene, row: &Row) -> Result<()> {
    let service = scene.service("web", json!({})).await?;
    let total = row.pods.max(row.existing.iter().sum());
    let address = |n: usize| format!("10.1.{}.{}", 1 + n / 200, 1 + n % 200);
    stream::iter(0..row.pods)
        .map(|n| async move { scene.pod(&format!("web-{n:03}"), "web", &[&address(n)]).await })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    let pods: BTreeMap<String, Pod> = scene
        .api::<Pod>()
        .list(&kube::api::ListParams::default())
        .await?
        .items
        .into_iter()
        .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod))
        .collect();
    let endpoints: Vec<_> = (0..total)
        .map(|n| endpoint(scene, &pods, n, &address(n)))
        .collect();
    let mut rest = endpoints.as_slice();
    for size in row.existing {
        let (these, others) = rest.split_at(*size);
        rest = others;
        write_as_the_go_original(scene, &service, row, these).await?;
    }
    Ok(())
}

/// Field by field what the Go original wrote, with the resourceVersion in targetRef.
fn endpoint(scene: &Scene, pods: &BTreeMap<String, Pod>, n: usize, address: &str) -> Value {
    let name = format!("web-{n:03}");
    let meta = pods
        .get(&name)
        .map(|pod| pod.metadata.clone())
        .unwrap_or_default();
    json!({
        "addresses": [address], "nodeName": "node-1", "zone": "zone-a",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": scene.namespace, "name": name, "uid": meta.uid, "resourceVersion": meta.resource_version},
    })
}

async fn write_as_the_go_original(
    scene: &Scene,
    service: &Service,
    row: &Row,
    endpoints: &[Value],
) -> Result<()> {
    let uid = if row.is_own {
        service.metadata.uid.clone()
    } else {
        Some("00000000-dead".to_owned())
    };
    let slice = json!({
        "metadata": {
            "generateName": "web-multus-",
            "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME, names::SERVICE_NAME_LABEL: "web", names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "annotations": {names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION: "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": uid, "controller": true, "blockOwnerDeletion": false}],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": row.port, "protocol": "TCP"}],
    });
    scene
        .api::<EndpointSlice>()
        .create(&PostParams::default(), &serde_json::from_value(slice)?)
        .await?;
    Ok(())
}

/// Creates, updates and deletes of slices in a namespace by the controller.
fn writes(server: &Apiserver, namespace: &str) -> Result<(usize, usize, usize)> {
    let log = std::fs::read_to_string(server.audit_log())?;
    let requests: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("multus-service:multus-service-controller"))
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|r: &Value| {
            r["objectRef"]["resource"] == "endpointslices" && r["objectRef"]["namespace"] == namespace
        })
        .collect();
    let count = |verb: &str| requests.iter().filter(|r| r["verb"] == verb).count();
    Ok((count("create"), count("update"), count("delete")))
}
