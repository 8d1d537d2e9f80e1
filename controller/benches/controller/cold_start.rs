//! Cold start: the controller starts in a cluster full of Services without slices.

use crate::bed::{Controller, Fixture};
use crate::load::{PARALLEL, PODS_PER_SERVICE, SERVICES, address, until_slices};
use crate::row;
use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::apiserver::Apiserver;

/// Time from the start of the process until the last slice is seen. Reference: the same slices created by a client that does nothing else,
/// before and after, because a recently started API server is slower.
pub(crate) async fn start(server: &Apiserver, fixture: &Fixture, kubeconfig: &Path) -> Result<Controller> {
    bare_creates(fixture).await?;
    let before = bare_creates(fixture).await?;
    let started = Instant::now();
    let controller = crate::load::start(server, kubeconfig).await?;
    let ready = started.elapsed();
    until_slices(fixture, SERVICES).await?;
    let took = started.elapsed();
    let after = bare_creates(fixture).await?;
    let bare = (before + after) / 2;
    row(
        "cold start, 1,000 Services × 10 pods",
        &format!("{took:.2?}, of which {ready:.2?} until everything was listed"),
        &format!(
            "a bare client's 1,000 creates {before:.2?} before, {after:.2?} after: ratio {:.2}, without the list {:.2}; budget 1.3",
            took.as_secs_f64() / bare.as_secs_f64(),
            (took.saturating_sub(ready)).as_secs_f64() / bare.as_secs_f64()
        ),
    );
    Ok(controller)
}

/// Creates the same 1,000 slices, with as many concurrent requests as the controller.
async fn bare_creates(fixture: &Fixture) -> Result<Duration> {
    let slices: Api<EndpointSlice> = fixture.api();
    let made = |n: usize| {
        let endpoint = |i: usize| {
            json!({"addresses": [address(n * 10 + i)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1", "zone": "zone-a", "targetRef": {"kind": "Pod", "namespace": fixture.namespace, "name": format!("svc-{n}-{i}")}})
        };
        json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": (0..PODS_PER_SERVICE).map(endpoint).collect::<Vec<_>>(),
            "metadata": {"generateName": format!("svc-{n}-bare-"), "labels": {"bench": "bare"}}})
    };
    let objects: Vec<EndpointSlice> = (0..SERVICES)
        .map(|n| serde_json::from_value(made(n)))
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    stream::iter(objects)
        .map(|slice| {
            let slices = slices.clone();
            async move { slices.create(&PostParams::default(), &slice).await.map(drop) }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let took = started.elapsed();
    let bare = ListParams::default().labels("bench=bare");
    slices.delete_collection(&DeleteParams::default(), &bare).await?;
    Ok(took)
}
