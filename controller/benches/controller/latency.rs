//! Pod Ready → slice written.

use crate::bed::Fixture;
use crate::row;
use anyhow::{Context as _, Result};
use api::names;
use futures::TryStreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use std::time::{Duration, Instant};

const FLIPS: usize = 400;

/// Time from the response to a pod's status change until a watch sees the slice. Reference: from a slice update of the bench until the same
/// watch sees it.
pub(crate) async fn pod_ready_to_slice(fixture: &Fixture, name: &str) -> Result<()> {
    let mut events = Box::pin(slice_events(fixture).await?);
    let (mut measured, mut bare) = (Vec::new(), Vec::new());
    for flip in 0..FLIPS {
        let pod = format!("svc-{}-0", flip % 50);
        let ready = if flip / 50 % 2 == 0 { "False" } else { "True" };
        fixture.pod_status(&pod, ready, &time(flip)).await?;
        let start = Instant::now();
        let slice = next_slice(&mut events).await?;
        measured.push(start.elapsed());
        if flip % 4 == 0 {
            // Beyond the time in which the controller collects changes, so that it does not write on its own.
            tokio::time::sleep(Duration::from_millis(300)).await;
            bare.push(bare_write(fixture, slice, flip, &mut events).await?.0);
        }
    }
    row(
        &format!("pod Ready → slice seen, {name}"),
        &quantiles(&mut measured),
        &format!(
            "one slice write seen: {}; budget p99 ≤ 50 ms + that",
            quantiles(&mut bare)
        ),
    );
    Ok(())
}

/// Watches managed slices from now on.
pub(crate) async fn slice_events(
    fixture: &Fixture,
) -> Result<impl futures::Stream<Item = Result<WatchEvent<EndpointSlice>, kube::Error>>> {
    let slices: Api<EndpointSlice> = fixture.api();
    let managed = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
    let list = slices
        .list(&ListParams::default().labels(&managed).limit(1))
        .await?;
    let version = list.metadata.resource_version.context("no version")?;
    Ok(slices
        .watch(&WatchParams::default().labels(&managed), &version)
        .await?)
}

/// Writes a slice and waits until the watch sees it.
pub(crate) async fn bare_write(
    fixture: &Fixture,
    mut slice: EndpointSlice,
    n: usize,
    events: &mut (impl futures::Stream<Item = Result<WatchEvent<EndpointSlice>, kube::Error>> + Unpin),
) -> Result<(Duration, EndpointSlice)> {
    let slices: Api<EndpointSlice> = fixture.api();
    let name = slice.metadata.name.clone().unwrap_or_default();
    let annotations = slice.metadata.annotations.get_or_insert_default();
    annotations.insert("bench".into(), n.to_string());
    let start = Instant::now();
    slices.replace(&name, &PostParams::default(), &slice).await?;
    let seen = next_slice(events).await?;
    Ok((start.elapsed(), seen))
}

pub(crate) fn time(n: usize) -> String {
    format!("2026-01-02T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60)
}

pub(crate) async fn next_slice(
    events: &mut (impl futures::Stream<Item = Result<WatchEvent<EndpointSlice>, kube::Error>> + Unpin),
) -> Result<EndpointSlice> {
    let wait = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(slice) | WatchEvent::Added(slice) = event {
                return Ok(slice);
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .context("no slice was written")?
}

pub(crate) fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get((times.len() - 1) * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    format!("p50 {:.1?}, p99 {:.1?}", at(50), at(99))
}
