//! Watches that wait after an error, each time longer, and watches of kinds that a cluster may lack.
//!
//! kube's own backoff (5.0.0) begins again at every event, and a watch that lists by pages yields `Init` before it asks: each failed list is
//! then the first. Here the pauses begin again only at what the API server sent.

mod definition;
mod pauses;
#[cfg(test)]
mod tests;

pub use definition::{Defined, defined, while_defined};
pub use pauses::{Presence, is_not_served};

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use pauses::Pauses;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A watch that never ends. An error is yielded at once; the next request follows after a pause.
pub fn watch<K>(
    api: Api<K>,
    config: Config,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    paced(watcher(api, config), presence)
}

/// The events, with a pause after each error.
fn paced<K: Send>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    presence: Presence,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
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
