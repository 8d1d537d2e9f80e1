//! The watches of all processes: with a backoff, without a stop at an object that cannot be decoded, also of kinds that a cluster may lack.
//!
//! Reads: the kinds that callers name. kube's own backoff (5.0.0) is reset by every event, and a paged watch yields `Init` before its
//! request: each failed list is then the first. Here only a response of the API server resets the backoff. kube's watcher also retries
//! without a pause when a watch is closed at once; here that is an error.

mod backoff;
mod change;
mod crd;
mod event;
mod guarded;
mod list_splitter;
mod optional;
#[cfg(test)]
mod tests;
mod unpaged;

pub use backoff::Presence;
use backoff::is_not_served;
pub use change::{Change, changes};
pub use crd::{Defined, defined, follow_defined};
pub use event::Event;
pub use guarded::{Guarded, Unreadable};
pub use optional::follow_optional;
pub use unpaged::{Freshness, ListVersion, number};

use crate::error_chain;
use crate::metrics::watch_restarts;
use backoff::WatchBackoff;
use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Config};
use kube::{Api, Resource};
use prometheus_client::metrics::counter::Counter;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::warn;
use unpaged::Source;

/// Returns a watch that never ends: the events of kube's watcher, for its reflector. An error is yielded at once; the next request follows
/// after a pause. The list is the cheapest one: one request, parsed as it arrives, so that no more than one object is in memory. Every API
/// server supports it. Page size, list semantic and strategy of `config` are ignored.
pub fn watch<K>(
    api: Api<K>,
    config: Config,
    freshness: Freshness,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    counted(Source::new(api, config, freshness), presence)
}

/// Follows the objects of a kind: [`watch`] without its errors, which are logged. An object that cannot be decoded is an event.
pub fn follow<K>(
    api: Api<Guarded<K>>,
    config: Config,
    freshness: Freshness,
    presence: Presence,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    logged(watch(api, config, freshness, presence))
}

/// [`follow`] for a kind that the process needs, and the version of the last list.
pub fn follow_versioned<K>(
    api: Api<Guarded<K>>,
    config: Config,
    freshness: Freshness,
) -> (ListVersion, impl Stream<Item = Event<K>> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let source = Source::new(api, config, freshness);
    let listed = source.listed.clone();
    (listed, logged(counted(source, Presence::Required)))
}

/// [`follow`] for the existence of any object of a kind that the process needs: the list is limited to one.
pub fn follow_any<K>(api: Api<Guarded<K>>, config: Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let source = Source {
        limit: Some(1),
        // A list from the cache ignores the limit.
        ..Source::new(api, config, Freshness::Latest)
    };
    logged(counted(source, Presence::Required))
}

/// Returns the events; errors are logged. The watch retries with a backoff.
fn logged<K, S>(items: S) -> impl Stream<Item = Event<K>> + Send + use<K, S>
where
    K: Resource<DynamicType = ()> + Send,
    S: Stream<Item = watcher::Result<watcher::Event<Guarded<K>>>> + Send,
{
    without_errors(
        items,
        |error| warn!(kind = %K::kind(&()), error = %error_chain(&error), "Watch failed, retrying"),
    )
}

/// Returns the events; errors are passed to `log`.
fn without_errors<K, S, L>(items: S, log: L) -> impl Stream<Item = Event<K>> + Send + use<K, S, L>
where
    K: Resource + Send,
    S: Stream<Item = watcher::Result<watcher::Event<Guarded<K>>>> + Send,
    L: Fn(watcher::Error) + Send,
{
    items.filter_map(move |item| std::future::ready(item.map_err(&log).ok().map(Event::from)))
}

/// Returns the events of a source, [`paced`], and counts its restarts by the resource.
fn counted<K>(
    source: Source<K>,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let restarts = watch_restarts(source.api.resource_url());
    paced(unpaged::events(source), presence, restarts)
}

/// Returns the events with a pause after each error; each error is a restart.
fn paced<K: Send, S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send>(
    events: S,
    presence: Presence,
    restarts: Counter,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K, S> {
    let begin = (
        Box::pin(events),
        WatchBackoff::new(presence),
        restarts,
        None::<Duration>,
    );
    stream::unfold(begin, async |(mut events, mut backoff, restarts, pause)| {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        let event = events.next().await?;
        if event.is_err() {
            restarts.inc();
        }
        let pause = backoff.after(&event, Instant::now());
        Some((event, (events, backoff, restarts, pause)))
    })
}
