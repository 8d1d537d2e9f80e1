//! Writes per change: one endpoint, and a whole Deployment.

use crate::bed::Fixture;
use crate::bed::audit::slice_writes;
use crate::latency::{bare_write, next_slice, quantiles, slice_events, time};
use crate::load::{PARALLEL, address, manifest, pods, stored};
use crate::row;
use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::apiserver::Apiserver;

const PODS: usize = 500;
const FLIPS: usize = 10;

fn all_writes(server: &Apiserver, fixture: &Fixture) -> Result<usize> {
    let (creates, updates, deletes) = slice_writes(server, &fixture.namespace)?;
    Ok(creates + updates + deletes)
}

/// Slice writes that one pod's change of readiness causes, over several.
pub(crate) async fn flip(server: &Apiserver, fixture: &Fixture) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = all_writes(server, fixture)?;
    for n in 0..FLIPS {
        let pod = format!("svc-{n}-3");
        fixture.pod_status(&pod, "False", "2026-01-03T00:00:00Z").await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = all_writes(server, fixture)? - before;
    row(
        "writes per endpoint flip",
        &format!("{writes} for {FLIPS} flips"),
        "budget 1 each",
    );
    Ok(())
}

/// One of 1,000 pods of a Service changes, again as soon as its slice is seen. Reference: the same slice, written by a client that does
/// nothing else, again as soon as it is seen.
pub(crate) async fn back_to_back(server: &Apiserver, fixture: &Fixture) -> Result<()> {
    const CROWD: usize = 1000;
    const ROUNDS: usize = 200;
    pods(
        fixture,
        (0..CROWD).map(|n| (format!("crowd-{n}"), "crowd".to_owned(), address(40_000 + n))),
    )
    .await?;
    fixture.service("crowd", json!({})).await?;
    fixture
        .slices_until("crowd", "1,000 endpoints", |slices| endpoints(slices) == CROWD)
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = all_writes(server, fixture)?;
    let mut events = Box::pin(slice_events(fixture).await?);
    let (mut measured, mut bare, mut slice) = (Vec::new(), Vec::new(), None);
    for n in 0..ROUNDS {
        let ready = if n % 2 == 0 { "False" } else { "True" };
        fixture.pod_status("crowd-7", ready, &time(n)).await?;
        let started = Instant::now();
        slice = Some(next_slice(&mut events).await?);
        measured.push(started.elapsed());
    }
    let writes = all_writes(server, fixture)? - before;
    // Until the controller has nothing more to write.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 0..ROUNDS {
        let (took, written) = bare_write(fixture, slice.context("no slice")?, n, &mut events).await?;
        bare.push(took);
        slice = Some(written);
    }
    row(
        "one of 1,000 pods flips back to back → slice seen",
        &format!("{}, {writes} writes for {ROUNDS} flips", quantiles(&mut measured)),
        &format!(
            "one slice write seen, back to back: {}; budget p50 ≤ 15 ms, 1 write a flip",
            quantiles(&mut bare)
        ),
    );
    Ok(())
}

/// A hundred pods of one Service change ten times a second. They are stored in etcd, which takes that many changes on any machine.
pub(crate) async fn storm(server: &Apiserver, fixture: &Fixture) -> Result<()> {
    const STORMING: usize = 100;
    const TICKS: usize = 100;
    let all = |tick: usize| {
        let ready = if tick.is_multiple_of(2) { "True" } else { "False" };
        (0..STORMING).map(move |n| {
            let (name, number) = (format!("storm-{n}"), 60_000 + n);
            let pod = manifest(fixture, &name, "storm", &address(number), "node-1");
            stored(fixture, pod, number, ready, &time(tick))
        })
    };
    server.store(all(0)).await?;
    fixture.service("storm", json!({})).await?;
    fixture
        .slices_until("storm", "100 endpoints", |slices| endpoints(slices) == STORMING)
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = all_writes(server, fixture)?;
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for tick in 1..=TICKS {
        ticks.tick().await;
        server.store(all(tick)).await?;
    }
    let took = started.elapsed();
    let writes = all_writes(server, fixture)? - before;
    row(
        "100 pods of one Service that do not rest",
        &format!(
            "{:.0} flips/s for {took:.1?}, {writes} slice writes",
            f64::from(u32::try_from(STORMING * TICKS)?) / took.as_secs_f64()
        ),
        &format!(
            "budget a burst of 4, and 4 a second: {:.0}",
            4.0 + 4.0 * took.as_secs_f64()
        ),
    );
    Ok(())
}

fn endpoints(slices: &[EndpointSlice]) -> usize {
    slices.iter().map(|slice| slice.endpoints.len()).sum()
}

/// A Deployment's rolling restart with a quarter surge: new pods become ready, then as many old ones go.
pub(crate) async fn restart(server: &Apiserver, fixture: &Fixture) -> Result<()> {
    let batch = |kind: &'static str, from: usize| {
        move |n: usize| (format!("{kind}-{n}"), "rolling".to_owned(), address(from + n))
    };
    pods(fixture, (0..PODS).map(batch("old", 20_000))).await?;
    fixture.service("rolling", json!({})).await?;
    fixture
        .slices_until("rolling", "500 endpoints", |slices| endpoints(slices) == PODS)
        .await?;
    let before = all_writes(server, fixture)?;
    let started = Instant::now();
    for wave in 0..4 {
        let quarter = || (wave * PODS / 4)..((wave + 1) * PODS / 4);
        pods(fixture, quarter().map(batch("new", 30_000))).await?;
        delete_old(fixture, quarter()).await?;
    }
    let (lag, took) = (Instant::now(), started.elapsed());
    let is_new = |slice: &EndpointSlice| {
        let names = slice
            .endpoints
            .iter()
            .filter_map(|e| e.target_ref.as_ref()?.name.as_deref());
        names.into_iter().all(|name| name.starts_with("new-"))
    };
    fixture
        .slices_until("rolling", "500 new endpoints", |slices| {
            endpoints(slices) == PODS && slices.iter().all(is_new)
        })
        .await?;
    let writes = all_writes(server, fixture)? - before;
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

async fn delete_old(fixture: &Fixture, which: std::ops::Range<usize>) -> Result<()> {
    let old = fixture.api::<Pod>();
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
