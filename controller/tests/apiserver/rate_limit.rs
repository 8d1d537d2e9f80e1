//! Write rate of a Service: at once while its pods change now and then, a few times a second while they change continuously.

use std::time::{Duration, Instant};

use crate::bed::audit::slice_writes;
use crate::bed::{Bed, Fixture};
use anyhow::{Context as _, Result};
use api::names;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::json;

const PODS: usize = 20;
const FLIPS: usize = 40;

async fn web(prefix: &str) -> Result<(&'static Bed, Fixture)> {
    let bed = Bed::shared().await?;
    let fixture = bed.fixture(prefix).await?;
    for n in 0..PODS {
        fixture
            .pod(&format!("web-{n}"), "web", &[&format!("10.1.0.{}", n + 1)])
            .await?;
    }
    fixture.service("web", json!({})).await?;
    fixture
        .slices_until("web", "all endpoints", |slices| {
            crate::bed::endpoints(slices).len() == PODS
        })
        .await?;
    // Its tokens are refilled meanwhile.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    Ok((bed, fixture))
}

fn readiness(n: usize) -> (&'static str, String) {
    let since = format!("2026-01-02T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60);
    (if n.is_multiple_of(2) { "False" } else { "True" }, since)
}

fn count(bed: &Bed, fixture: &Fixture) -> Result<usize> {
    let (creates, updates, deletes) = slice_writes(bed.server, &fixture.namespace)?;
    Ok(creates + updates + deletes)
}

/// One pod changes, its slice is seen, it changes again: such a client waits for each write, and must not wait for a window in which
/// nothing else comes.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn changes_one_after_the_other_are_written_at_once_and_each_once() -> Result<()> {
    let (bed, fixture) = web("one-by-one").await?;
    let before = count(bed, &fixture)?;
    let slices: Api<EndpointSlice> = fixture.api();
    let managed = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
    let list = slices.list(&ListParams::default().labels(&managed)).await?;
    let version = list.metadata.resource_version.context("no version")?;
    let mut events = Box::pin(
        slices
            .watch(&WatchParams::default().labels(&managed), &version)
            .await?,
    );
    let (mut slice, mut api) = (Vec::new(), Vec::new());
    for flip in 0..FLIPS {
        let (ready, since) = readiness(flip);
        let begin = Instant::now();
        fixture.pod_status("web-0", ready, &since).await?;
        let answered = Instant::now();
        api.push(answered - begin);
        let seen = async {
            while let Some(event) = events.try_next().await? {
                if matches!(event, WatchEvent::Modified(_)) {
                    return anyhow::Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        };
        tokio::time::timeout(Duration::from_secs(20), seen)
            .await
            .with_context(|| format!("flip {flip} was not written"))??;
        slice.push(answered.elapsed());
    }
    slice.sort_unstable();
    api.sort_unstable();
    let (median, yardstick) = (slice[FLIPS / 2], api[FLIPS / 2]);
    println!(
        "flip to slice p50 {median:?}, p90 {:?}; a bare status patch p50 {yardstick:?}",
        slice[FLIPS * 9 / 10]
    );
    let writes = count(bed, &fixture)? - before;
    assert!(writes <= FLIPS, "{writes} writes for {FLIPS} flips");
    // A write and what it is decided from cost a few requests; a window of 250 ms costs what no busy machine adds to each of them.
    assert!(
        median < Duration::from_millis(100) + yardstick * 4,
        "p50 {median:?} where a bare patch takes {yardstick:?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn continuously_changing_pods_are_a_burst_and_four_writes_a_second() -> Result<()> {
    let (bed, fixture) = web("storm").await?;
    let before = count(bed, &fixture)?;
    let begin = Instant::now();
    let scene_ref = &fixture;
    let flips = stream::iter(0..)
        .take_while(|_| std::future::ready(begin.elapsed() < Duration::from_secs(5)))
        .map(|n| async move {
            let (ready, since) = readiness(n / PODS);
            scene_ref
                .pod_status(&format!("web-{}", n % PODS), ready, &since)
                .await
        })
        .buffer_unordered(16)
        .try_fold(0_u32, async |flips, ()| Ok(flips + 1))
        .await?;
    for n in 0..PODS {
        fixture
            .pod_status(&format!("web-{n}"), "True", "2026-01-03T00:00:00Z")
            .await?;
    }
    let took = begin.elapsed();
    fixture
        .slices_until("web", "what the pods are in the end", |slices| {
            crate::bed::endpoints(slices).iter().all(|(_, ready)| *ready)
        })
        .await?;
    let writes = count(bed, &fixture)? - before;
    println!("{flips} flips in {took:?}: {writes} writes");
    // One more may follow the last change.
    let allowed = 4.0 + took.as_secs_f64() * 4.0 + 2.0;
    assert!(
        f64::from(u32::try_from(writes)?) <= allowed,
        "{writes} writes for {flips} flips in {took:?}"
    );
    Ok(())
}
