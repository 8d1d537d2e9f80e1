//! Watches of kinds that are added and removed with a CustomResourceDefinition.

use super::{Event, Freshness, Guarded, Presence, watch, without_errors};
use crate::error_chain;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Config};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tracing::{debug, warn};

/// Item of the watch of a kind that the cluster may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defined<T> {
    /// The kind is not defined, or no longer.
    No,
    /// An item about its objects.
    Yes(T),
}

/// Yields whether a CustomResourceDefinition exists, initially and on every change. Only its metadata is read.
pub fn defined(client: &Client, name: &str) -> impl Stream<Item = bool> + Send + use<> {
    let definitions = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let only = Config::default().fields(&format!("metadata.name={name}"));
    let name = name.to_owned();
    let events = watch(definitions, only, Freshness::Latest, Presence::Optional).inspect(move |event| {
        if let Err(error) = event {
            warn!(definition = %name, error = %error_chain(error), "Failed to watch the CustomResourceDefinition, retrying");
        }
    });
    existence(events)
}

pub(super) fn existence<K: Send>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
) -> impl Stream<Item = bool> + Send {
    let (mut is_listed, mut known) = (false, None);
    events.filter_map(move |event| {
        let exists = match event {
            Ok(watcher::Event::Init) => {
                is_listed = false;
                None
            }
            Ok(watcher::Event::InitApply(_)) => {
                is_listed = true;
                None
            }
            Ok(watcher::Event::InitDone) => Some(is_listed),
            Ok(watcher::Event::Apply(_)) => Some(true),
            Ok(watcher::Event::Delete(_)) => Some(false),
            Err(_) => None,
        };
        let changed = exists.filter(|exists| known.replace(*exists) != Some(*exists));
        std::future::ready(changed)
    })
}

/// Follows the objects of a kind while its CustomResourceDefinition exists, as [`while_defined`] does.
pub fn follow_defined<K>(
    client: &Client,
    definition: &str,
    api: Api<Guarded<K>>,
    config: Config,
    freshness: Freshness,
) -> impl Stream<Item = Defined<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType: Clone> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let name = definition.to_owned();
    while_defined(defined(client, definition), move || {
        let name = name.clone();
        let items = watch(api.clone(), config.clone(), freshness, Presence::Optional);
        without_errors(items, move |error| {
            // A kind is served a moment after it is defined.
            debug!(definition = %name, error = %error_chain(&error), "Failed to watch an optional kind, retrying");
        })
    })
}

/// Yields the items of `begin` while a kind is defined. The stream is dropped when the definition is deleted and begun again when it is
/// recreated, so that there is no request for a kind that the cluster lacks.
pub(super) fn while_defined<S>(
    defined: impl Stream<Item = bool> + Send + 'static,
    begin: impl Fn() -> S + Send + 'static,
) -> impl Stream<Item = Defined<S::Item>> + Send
where
    S: Stream<Item: Send> + Send + 'static,
{
    let nothing: BoxStream<'static, S::Item> = stream::pending().boxed();
    stream::unfold(
        (defined.boxed(), nothing, begin),
        async |(mut defined, mut happening, begin)| {
            loop {
                tokio::select! {
                    biased;
                    is_defined = defined.next() => {
                        if is_defined? {
                            happening = begin().boxed();
                        } else {
                            return Some((Defined::No, (defined, stream::pending().boxed(), begin)));
                        }
                    }
                    Some(event) = happening.next() => return Some((Defined::Yes(event), (defined, happening, begin))),
                }
            }
        },
    )
}
