//! Runs the watches of slices that [`Narrow`] requires.
//!
//! Reads only.

use super::narrow::{Narrow, PodChange};
use super::scope::{Network, Scope, unlabelled};
use super::slices::{Item, ItemChange};
use super::{name, slice};
use crate::index::Update;
use api::names::NETWORK_LABEL;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Client, Resource};
use process::watch::{Event, Freshness, Guarded, changes, follow_any, follow_versioned, number};
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;
use tracing::debug;

/// Change of a watch, with the version of its last list.
type Versioned = (ItemChange, u64);

struct Follower {
    client: Client,
    narrow: Narrow,
    pods: BoxStream<'static, PodChange>,
    /// Running watches; the first one feeds the driver.
    watches: Vec<(u64, BoxStream<'static, Versioned>)>,
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
        let watched = stream::select_all(self.watches.iter_mut().map(|(id, changes)| {
            let id = *id;
            changes.map(move |change| (id, change))
        }));
        let mut watched = std::pin::pin!(watched);
        let updates = tokio::select! {
            change = self.pods.next() => self.narrow.pod(change?, Instant::now()),
            Some((id, (change, version))) = watched.next() => self.narrow.slices(id, change, version, Instant::now()),
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

fn slices(client: &Client, scope: &Scope, freshness: Freshness) -> BoxStream<'static, Versioned> {
    let Some(selector) = scope.selector() else {
        return stream::pending().boxed();
    };
    debug!(%selector, "Watching EndpointSlices");
    let config = Config::default().labels(&selector);
    let (version, events) = follow_versioned(Api::all(client.clone()), config, freshness);
    changes(events, item, without_slice)
        .map(move |change| (change, version.get()))
        .boxed()
}

fn item(object: &Guarded<EndpointSlice>) -> Item {
    Item {
        slice: slice(object),
        ..without_slice(object.meta())
    }
}

fn without_slice(metadata: &ObjectMeta) -> Item {
    let label = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(NETWORK_LABEL));
    Item {
        name: name(metadata),
        version: number(metadata.resource_version.as_deref()),
        network: label.map(|value| Network::of_label(value)),
        slice: None,
    }
}

/// Reports whether slices without a network label exist, at first and whenever one appears.
fn probe(client: &Client) -> BoxStream<'static, bool> {
    let slices: Api<Guarded<PartialObjectMeta<EndpointSlice>>> = Api::all(client.clone());
    let events = follow_any(slices, Config::default().labels(&unlabelled()));
    let reports = events.filter_map(|event| {
        std::future::ready(match event {
            Event::Listed(_) | Event::Applied(_) | Event::Unreadable(_) => Some(true),
            Event::ListDone => Some(false),
            Event::ListStarted | Event::Deleted(_) => None,
        })
    });
    reports.boxed()
}
