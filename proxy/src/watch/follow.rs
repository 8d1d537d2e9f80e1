//! Runs the watches of slices that [`Narrow`] requires.
//!
//! Reads only.

use super::narrow::{Narrow, PodChange};
use super::scope::{Network, Scope, unlabelled};
use super::slices::{Event, Item};
use super::{Guarded, Update, name_of, slice};
use api::names::NETWORK_LABEL;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Config};
use kube::{Api, Client, ResourceExt};
use process::error_chain;
use process::watch::{Freshness, Presence, number, watch_for_any, watch_versioned};
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;
use tracing::{debug, warn};

struct Follower {
    client: Client,
    narrow: Narrow,
    pods: BoxStream<'static, PodChange>,
    /// Running watches; the first one feeds the driver.
    watches: Vec<(u64, BoxStream<'static, Event>)>,
    probe: Option<BoxStream<'static, bool>>,
    ready: VecDeque<Update>,
}

/// Returns changes of the pods, and of the slices of their networks and of the networks `fixed` of the node itself.
pub(super) fn pods_and_slices(
    client: Client,
    pods: BoxStream<'static, PodChange>,
    fixed: BTreeSet<Network>,
) -> impl Stream<Item = Update> + Send {
    let follower = Follower {
        client,
        narrow: Narrow::new(fixed),
        pods,
        watches: Vec::new(),
        probe: None,
        ready: VecDeque::new(),
    };
    stream::unfold(follower, async |mut follower| {
        loop {
            if let Some(update) = follower.ready.pop_front() {
                return Some((update, follower));
            }
            follower.open_and_close();
            follower.step().await?;
        }
    })
}

impl Follower {
    async fn step(&mut self) -> Option<()> {
        let due = self.narrow.due();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let watched = stream::select_all(self.watches.iter_mut().map(|(id, events)| {
            let id = *id;
            events.map(move |event| (id, event))
        }));
        let mut watched = std::pin::pin!(watched);
        let updates = tokio::select! {
            change = self.pods.next() => self.narrow.pod(change?, Instant::now()),
            Some((id, event)) = watched.next() => self.narrow.slices(id, event, Instant::now()),
            Some(is_any) = next(self.probe.as_mut()) => self.narrow.probed(is_any, Instant::now()),
            () = due => self.narrow.tick(Instant::now()),
        };
        self.ready.extend(updates);
        Some(())
    }

    fn open_and_close(&mut self) {
        let wanted = self.narrow.wanted();
        let next = wanted.next.as_ref().map(|(id, _)| *id);
        let is_wanted = |id: u64| wanted.current == Some(id) || next == Some(id);
        self.watches.retain(|(id, _)| is_wanted(*id));
        if let Some((id, scope)) = wanted.next
            && !self.watches.iter().any(|(running, _)| *running == id)
        {
            let freshness = match wanted.current {
                // Not older than the events of the previous watch.
                Some(_) => Freshness::Latest,
                None => Freshness::Cached,
            };
            let events = slices(&self.client, &scope, freshness);
            self.watches.push((id, events));
        }
        if !wanted.probe {
            self.probe = None;
        } else if self.probe.is_none() {
            self.probe = Some(probe(&self.client));
        }
    }
}

async fn next<T>(stream: Option<&mut BoxStream<'static, T>>) -> Option<T> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

fn slices(client: &Client, scope: &Scope, freshness: Freshness) -> BoxStream<'static, Event> {
    let Some(selector) = scope.selector() else {
        return stream::pending().boxed();
    };
    debug!(%selector, "Watching EndpointSlices");
    let api: Api<Guarded<EndpointSlice>> = Api::all(client.clone());
    let config = Config::default().labels(&selector);
    let (version, events) = watch_versioned(api, config, freshness, Presence::Required);
    let mut listed = Vec::new();
    let events = events.filter_map(move |event| {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(item(&object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Event::Listed(std::mem::take(&mut listed), version.get())),
            Ok(watcher::Event::Apply(object)) => Some(Event::Applied(item(&object))),
            Ok(watcher::Event::Delete(object)) => Some(Event::Left(item(&object))),
            // The watch retries with a backoff.
            Err(error) => {
                warn!(kind = "EndpointSlice", error = %error_chain(&error), "Watch failed, retrying");
                None
            }
        };
        std::future::ready(event)
    });
    events.boxed()
}

fn item(object: &Guarded<EndpointSlice>) -> Item {
    let label = object.labels().get(NETWORK_LABEL);
    Item {
        name: name_of(object),
        version: number(object.resource_version().as_deref()),
        network: label.map(|value| Network::of_label(value)),
        slice: slice(object),
    }
}

/// Reports whether slices without a network label exist, at first and whenever one appears.
fn probe(client: &Client) -> BoxStream<'static, bool> {
    let api: Api<PartialObjectMeta<EndpointSlice>> = Api::all(client.clone());
    let config = Config::default().labels(&unlabelled());
    let events = watch_for_any(api, config, Presence::Required).filter_map(|event| {
        std::future::ready(match event {
            Ok(watcher::Event::InitApply(_) | watcher::Event::Apply(_)) => Some(true),
            Ok(watcher::Event::InitDone) => Some(false),
            Ok(watcher::Event::Init | watcher::Event::Delete(_)) => None,
            Err(error) => {
                warn!(kind = "EndpointSlice", error = %error_chain(&error), "Watch failed, retrying");
                None
            }
        })
    });
    events.boxed()
}
