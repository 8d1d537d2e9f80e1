//! Writes per change: one endpoint, and a whole Deployment.

use crate::bed::Scene;
use crate::bed::audit::slice_writes;
use crate::latency::{next_slice, quantiles, slice_events};
use crate::load::{PARALLEL, PODS_PER_SERVICE, address, pods};
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

/// One of 1,000 pods of a Service changes, again as soon as its slice is seen.
pub(crate) async fn back_to_back(server: &Apiserver, scene: &Scene) -> Result<()> {
    const CROWD: usize = 1000;
    const ROUNDS: usize = 50;
    pods(
        scene,
        (0..CROWD).map(|n| (format!("crowd-{n}"), "crowd".to_owned(), address(40_000 + n))),
    )
    .await?;
    scene.service("crowd", json!({})).await?;
    scene
        .slices_until("crowd", "1,000 endpoints", |slices| endpoints(slices) == CROWD)
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = all_writes(server, scene)?;
    let mut events = Box::pin(slice_events(scene).await?);
    let mut measured = Vec::new();
    for n in 0..ROUNDS {
        let ready = if n % 2 == 0 { "False" } else { "True" };
        scene
            .pod_status("crowd-7", ready, &format!("2026-01-04T00:00:{n:02}Z"))
            .await?;
        let started = Instant::now();
        next_slice(&mut events).await?;
        measured.push(started.elapsed());
    }
    let writes = all_writes(server, scene)? - before;
    row(
        "one of 1,000 pods flips back to back → slice seen",
        &format!("{}, {writes} writes for {ROUNDS} flips", quantiles(&mut measured)),
        "budget p50 ≤ 15 ms, 1 write a flip; with a window after each write p50 223 ms",
    );
    Ok(())
}

/// As many changes of one Service as the API server takes.
pub(crate) async fn storm(server: &Apiserver, scene: &Scene) -> Result<()> {
    const LASTS: Duration = Duration::from_secs(10);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = all_writes(server, scene)?;
    let started = Instant::now();
    let flips = stream::iter(0_usize..)
        .take_while(|_| std::future::ready(started.elapsed() < LASTS))
        .map(|n| async move {
            let ready = if (n / PODS_PER_SERVICE).is_multiple_of(2) {
                "False"
            } else {
                "True"
            };
            let since = format!(
                "2026-01-05T{:02}:{:02}:{:02}Z",
                n / 3600 % 24,
                n / 60 % 60,
                n % 60
            );
            scene
                .pod_status(&format!("svc-1-{}", n % PODS_PER_SERVICE), ready, &since)
                .await
        })
        .buffer_unordered(PODS_PER_SERVICE)
        .try_fold(0_u32, async |flips, ()| Ok(flips + 1))
        .await?;
    let took = started.elapsed().as_secs_f64();
    let writes = all_writes(server, scene)? - before;
    row(
        "pods of one Service that do not rest",
        &format!(
            "{:.0} flips/s, {writes} slice writes in {took:.1} s",
            f64::from(flips) / took
        ),
        "budget a burst of 4, and 4 a second",
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
