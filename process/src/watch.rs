//! Watches that wait after an error, each time longer, and watches of kinds that a cluster may lack.
//!
//! kube's own backoff (5.0.0) begins again at every event, and a watch that lists by pages yields `Init` before it asks: each failed list is
//! then the first. Here the pauses begin again only at what the API server sent. kube's watcher also asks again without a pause when a
//! watch is closed at once; here that is an error.

mod definition;
mod guarded;
mod items;
mod optional;
mod pauses;
#[cfg(test)]
mod tests;
mod whole;

pub use definition::{Defined, defined, while_defined};
pub use guarded::{Guarded, Unreadable};
pub use optional::watch_optional;
pub use pauses::{Presence, is_not_served};
pub use whole::{Freshness, ListVersion, number};

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use pauses::Pauses;
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
    watch_whole(api, config, Freshness::Latest, presence)
}

/// [`watch`] with the cheapest list: one request, read as it comes, so that no more than one object is in memory. Any API server can answer
/// it. Page size, list semantic and strategy of `config` do not count.
pub fn watch_whole<K>(
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

/// [`watch_whole`], and the version of its last list.
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
    let source = whole::Source {
        api,
        config,
        freshness,
        limit: None,
        listed: listed.clone(),
    };
    (listed, paced(whole::events(source), presence))
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
    let source = whole::Source {
        api,
        config,
        // A list out of the cache has no limit.
        freshness: Freshness::Latest,
        limit: Some(1),
        listed: ListVersion::default(),
    };
    paced(whole::events(source), presence)
}

/// The events, with a pause after each error.
fn paced<K: Send, S: Stream<Item = watcher::Result<Event<K>>> + Send>(
    events: S,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K, S> {
    let begin = (Box::pin(events), Pauses::new(presence), None::<Duration>);
    stream::unfold(begin, async |(mut events, mut pauses, pause)| {
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        let event = events.next().await?;
        let pause = pauses.after(&event, Instant::now());
        Some((event, (events, pauses, pause)))
    })
}
