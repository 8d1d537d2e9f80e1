//! Writes per change: one endpoint, and a whole Deployment.

use crate::bed::Scene;
use crate::bed::audit::slice_writes;
use crate::load::{PARALLEL, address, pods};
use crate::row;
use anyhow::Result;
use e2e::apiserver::Apiserver;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::json;
use std::time::{Duration, Instant};

const PODS: usize = 500;
const FLIPS: usize = 10;

fn all_writes(server: &Apiserver, scene: &Scene) -> Result<usize> {
    let (creates, updates, deletes) = slice_writes(server, &scene.namespace)?;
    Ok(creates + updates + deletes)
}

/// Slice writes that one pod's change of readiness causes, over several.
pub(crate) async fn flip(server: &Apiserver, scene: &Scene) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = all_writes(server, scene)?;
    for n in 0..FLIPS {
        let pod = format!("svc-{n}-3");
        scene.pod_status(&pod, "False", "2026-01-03T00:00:00Z").await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = all_writes(server, scene)? - before;
    row(
        "writes per endpoint flip",
        &format!("{writes} for {FLIPS} flips"),
        "budget 1 each",
    );
    Ok(())
}

fn endpoints(slices: &[EndpointSlice]) -> usize {
    slices.iter().map(|slice| slice.endpoints.len()).sum()
}

/// A Deployment's rolling restart with a quarter surge: new pods become ready, then as many old ones go.
pub(crate) async fn restart(server: &Apiserver, scene: &Scene) -> Result<()> {
    let batch = |kind: &'static str, from: usize| {
        move |n: usize| (format!("{kind}-{n}"), "rolling".to_owned(), address(from + n))
    };
    pods(scene, (0..PODS).map(batch("old", 20_000))).await?;
    scene.service("rolling", json!({})).await?;
    scene
        .slices_until("rolling", "500 endpoints", |slices| endpoints(slices) == PODS)
        .await?;
    let before = all_writes(server, scene)?;
    let started = Instant::now();
    for wave in 0..4 {
        let quarter = || (wave * PODS / 4)..((wave + 1) * PODS / 4);
        pods(scene, quarter().map(batch("new", 30_000))).await?;
        delete_old(scene, quarter()).await?;
    }
    let (lag, took) = (Instant::now(), started.elapsed());
    let is_new = |slice: &EndpointSlice| {
        let names = slice
            .endpoints
            .iter()
            .filter_map(|e| e.target_ref.as_ref()?.name.as_deref());
        names.into_iter().all(|name| name.starts_with("new-"))
    };
    scene
        .slices_until("rolling", "500 new endpoints", |slices| {
            endpoints(slices) == PODS && slices.iter().all(is_new)
        })
        .await?;
    let writes = all_writes(server, scene)? - before;
    row(
        "rolling restart of a Deployment of 500 pods",
        &format!(
            "{writes} slice writes, the last one within {:.1?} of the last pod",
            lag.elapsed()
        ),
        &format!("1,500 pod changes took {took:.1?}"),
    );
    Ok(())
}

async fn delete_old(scene: &Scene, which: std::ops::Range<usize>) -> Result<()> {
    let old = scene.api::<Pod>();
    let parameters = DeleteParams::default().grace_period(0);
    stream::iter(which)
        .map(|n| {
            let (old, parameters) = (old.clone(), parameters.clone());
            async move { old.delete(&format!("old-{n}"), &parameters).await.map(drop) }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    Ok(())
}
