//! Watch of a kind that a process does not need, such as `ServiceCIDR`, which Kubernetes has since 1.33.
//!
//! Reads: the kind. Where the API server does not serve it, or a role of an earlier release does not allow it, the set is empty, one warning is
//! logged, and requests back off.

use super::{Event, Freshness, Guarded, Presence, is_not_served, watch};
use crate::error_chain;
use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Config};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tracing::warn;

/// [`follow`](super::follow) from the cache for such a kind. `without`: behaviour without the kind, for the log.
pub fn follow_optional<K>(
    api: Api<Guarded<K>>,
    config: Config,
    without: &'static str,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let items = watch(api, config, Freshness::Cached, Presence::Optional);
    served(items, without).map(Event::from)
}

pub(super) fn served<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    without: &'static str,
) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Send,
{
    let (mut is_absent, mut was_listed) = (false, false);
    events.flat_map(move |event| {
        let events = match event {
            Ok(event) => {
                // A rejected list yields `Init`, too.
                is_absent &= matches!(event, watcher::Event::Init);
                was_listed |= matches!(event, watcher::Event::InitDone);
                vec![event]
            }
            Err(error) if is_not_served(&error) => {
                if !std::mem::replace(&mut is_absent, true) {
                    warn!(kind = %K::kind(&()), error = %error_chain(&error), "Failed to watch an optional kind: {without}");
                }
                // Known objects stay: a role may be missing for a moment.
                if std::mem::replace(&mut was_listed, true) {
                    Vec::new()
                } else {
                    vec![watcher::Event::Init, watcher::Event::InitDone]
                }
            }
            Err(error) => {
                warn!(kind = %K::kind(&()), error = %error_chain(&error), "Watch failed, retrying");
                Vec::new()
            }
        };
        stream::iter(events)
    })
}
