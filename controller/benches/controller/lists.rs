//! Duration of a list, by the way it is requested.

use crate::bed::Fixture;
use crate::row;
use anyhow::{Context as _, Result};
use controller::objects::PodObject;
use futures::{Stream, StreamExt as _};
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Event, watcher};
use process::watch::{Freshness, Presence, watch};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;

/// The controller's way beside the others, alternating; the shortest of each.
pub(crate) async fn pods(fixture: &Fixture, count: usize) -> Result<()> {
    let api = || Api::<PodObject>::all(fixture.client.clone());
    let streaming = || {
        Config {
            page_size: None,
            ..Config::default()
        }
        .streaming_lists()
    };
    let [mut whole, mut latest, mut paged, mut streamed] = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        let cached = watch(api(), Config::default(), Freshness::Cached, Presence::Required);
        whole = whole.min(until_listed(cached, count).await?);
        let now = watch(api(), Config::default(), Freshness::Latest, Presence::Required);
        latest = latest.min(until_listed(now, count).await?);
        let by_pages = watcher(api(), Config::default().page_size(200));
        paged = paged.min(until_listed(by_pages, count).await?);
        streamed = streamed.min(until_listed(watcher(api(), streaming()), count).await?);
    }
    row(
        &format!("list of {count} pods, parsed"),
        &format!("whole from the cache {whole:.0?}, whole as of now {latest:.0?}"),
        &format!(
            "pages of 200 {paged:.0?}, streamed {streamed:.0?}: {:.1} and {:.1} times the first",
            paged.as_secs_f64() / whole.as_secs_f64(),
            streamed.as_secs_f64() / whole.as_secs_f64()
        ),
    );
    Ok(())
}

async fn until_listed(
    events: impl Stream<Item = watcher::Result<Event<PodObject>>>,
    count: usize,
) -> Result<Duration> {
    let (started, mut listed) = (Instant::now(), 0);
    let mut events = Box::pin(events);
    loop {
        match events.next().await.context("the watch ended")?? {
            Event::InitApply(_) => listed += 1,
            Event::InitDone => break,
            _ => {}
        }
    }
    anyhow::ensure!(listed >= count, "{listed} objects, not {count}");
    Ok(started.elapsed())
}
