//! Watches that wait after an error, each time longer, and watches of kinds that a cluster may lack.
//!
//! kube's own backoff (5.0.0) begins again at every event, and a watch that lists by pages yields `Init` before it asks: each failed list is
//! then the first. Here the backoff begin again only at what the API server sent. kube's watcher also asks again without a pause when a
//! watch is closed at once; here that is an error.

mod backoff;
mod crd;
mod guarded;
mod list_splitter;
mod optional;
#[cfg(test)]
mod tests;
mod unpaged;

pub use backoff::{Presence, is_not_served};
pub use crd::{Defined, defined, while_defined};
pub use guarded::{Guarded, Unreadable};
pub use optional::watch_optional;
pub use unpaged::{Freshness, ListVersion, number};

use backoff::WatchBackoff;
use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A watch that never ends. An error is yielded at once; the next request follows after a pause. The list is one request as of now.
pub fn watch<K>(
    api: Api<K>,
    config: Config,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch_unpaged(api, config, Freshness::Latest, presence)
}

/// [`watch`] with the cheapest list: one request, read as it comes, so that no more than one object is in memory. Any API server can answer
/// it. Page size, list semantic and strategy of `config` do not count.
pub fn watch_unpaged<K>(
    api: Api<K>,
    config: Config,
    freshness: Freshness,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch_versioned(api, config, freshness, presence).1
}

/// [`watch_unpaged`], and the version of its last list.
pub fn watch_versioned<K>(
    api: Api<K>,
    config: Config,
    freshness: Freshness,
    presence: Presence,
) -> (
    ListVersion,
    impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>,
)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let listed = ListVersion::default();
    let source = unpaged::Source {
        api,
        config,
        freshness,
        limit: None,
        listed: listed.clone(),
    };
    (listed, paced(unpaged::events(source), presence))
}

/// A watch for whether there is any object: of those that exist the list shows one.
pub fn watch_for_any<K>(
    api: Api<K>,
    config: Config,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let source = unpaged::Source {
        api,
        config,
        // A list out of the cache has no limit.
        freshness: Freshness::Latest,
        limit: Some(1),
        listed: ListVersion::default(),
    };
    paced(unpaged::events(source), presence)
}

/// The events, with a pause after each error.
fn paced<K: Send, S: Stream<Item = watcher::Result<Event<K>>> + Send>(
    events: S,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K, S> {
    let begin = (Box::pin(events), WatchBackoff::new(presence), None::<Duration>);
    stream::unfold(begin, async |(mut events, mut backoff, pause)| {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        let event = events.next().await?;
        let pause = backoff.after(&event, Instant::now());
        Some((event, (events, backoff, pause)))
    })
}
