//! Services and pods to work on.

use crate::bed::{Controller, Fixture};
use anyhow::{Context as _, Result};
use api::names;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use testbed::apiserver::Apiserver;

/// Services of the large load.
pub(crate) const SERVICES: usize = 1000;
pub(crate) const PODS_PER_SERVICE: usize = 10;
/// Concurrent requests, of the load and of the bare client: as many as the controller makes.
pub(crate) const PARALLEL: usize = 32;

/// Starts the controller and waits until it has listed everything.
pub(crate) async fn start(server: &Apiserver, kubeconfig: &Path) -> Result<Controller> {
    let arguments = ["--leader-elect", "true"];
    let controller = Controller::start(kubeconfig, server.folder(), "bench", &arguments)?;
    controller.wait_ready().await?;
    Ok(controller)
}

/// The nth address of `10.0.0.0/8`, without .0 and .255.
pub(crate) fn address(n: usize) -> String {
    format!("10.{}.{}.{}", 1 + n / 62_500, n / 250 % 250, 1 + n % 250)
}

/// Services `svc-n`, each with ten ready pods of its own; pods first, as when the controller is installed into a running cluster.
pub(crate) async fn populate(fixture: &Fixture, services: usize) -> Result<()> {
    let of = |service: usize| {
        (0..PODS_PER_SERVICE).map(move |n| {
            let number = service * PODS_PER_SERVICE + n;
            (
                format!("svc-{service}-{n}"),
                format!("svc-{service}"),
                address(number),
            )
        })
    };
    pods(fixture, (0..services).flat_map(of)).await?;
    stream::iter(0..services)
        .map(|n| async move { fixture.service(&format!("svc-{n}"), json!({})).await.map(drop) })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

/// Pods that no Service selects.
pub(crate) async fn crowd(fixture: &Fixture, count: usize) -> Result<()> {
    let idle = |n| (format!("idle-{n}"), "idle".to_owned(), address(50_000 + n));
    pods(fixture, (0..count).map(idle)).await
}

/// Ready pods, given as name, application and address.
pub(crate) async fn pods(
    fixture: &Fixture,
    pods: impl Iterator<Item = (String, String, String)>,
) -> Result<()> {
    stream::iter(pods)
        .map(|(name, app, address)| async move { pod(fixture, &name, &app, &address).await })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

/// A pod of about the size of one of a Deployment.
pub(crate) fn manifest(fixture: &Fixture, name: &str, app: &str, address: &str, node: &str) -> Value {
    let variable = |n: usize| json!({"name": format!("SETTING_{n}"), "value": "a value of ordinary length"});
    let container = json!({
        "name": "server", "image": "registry.example.com/team/server:1.2.3",
        "env": (0..12).map(variable).collect::<Vec<_>>(), "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    });
    json!({
        "metadata": {
            "name": name,
            "labels": {"app": app, "app.kubernetes.io/part-of": "bench", "app.kubernetes.io/version": "1.2.3",
                "pod-template-hash": "75675f5897", "team": "network"},
            "annotations": {names::NETWORK_STATUS_ANNOTATION: fixture.status(&[address]), "k8s.v1.cni.cncf.io/networks": "testnet1"},
        },
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30, "containers": [container]},
    })
}

/// A pod as etcd has it: ready or not since a time. Storing it again changes its status.
pub(crate) fn stored(
    fixture: &Fixture,
    mut pod: Value,
    number: usize,
    ready: &str,
    since: &str,
) -> (String, Value) {
    let metadata = &mut pod["metadata"];
    let key = format!(
        "/registry/pods/{}/{}",
        fixture.namespace,
        metadata["name"].as_str().unwrap_or_default()
    );
    metadata["namespace"] = json!(fixture.namespace);
    metadata["uid"] = json!(format!("00000000-0000-4000-8002-{number:012x}"));
    metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["status"] = json!({"phase": "Running", "podIP": "10.128.0.5", "podIPs": [{"ip": "10.128.0.5"}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]});
    (key, pod)
}

async fn pod(fixture: &Fixture, name: &str, app: &str, address: &str) -> Result<()> {
    let pod = manifest(fixture, name, app, address, "node-1");
    fixture
        .api::<Pod>()
        .create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    fixture.pod_status(name, "True", "2026-01-01T00:00:00Z").await
}

/// Waits until this many managed slices have all their endpoints; by a watch, which costs the API server little.
pub(crate) async fn until_slices(fixture: &Fixture, count: usize) -> Result<()> {
    let managed =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY));
    let mut slices = Box::pin(watcher(fixture.api::<EndpointSlice>(), managed).applied_objects());
    let mut full = BTreeSet::new();
    let wait = async {
        while full.len() < count {
            let slice = slices.try_next().await?.context("the watch ended")?;
            if slice.endpoints.len() >= PODS_PER_SERVICE {
                full.insert(slice.metadata.name);
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(5), wait)
        .await
        .context("not all slices were written")?
}
