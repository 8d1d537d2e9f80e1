//! A hollow proxy (kubemark's term): the watches and the index of a proxy without a node, to measure what many of them cost an API server.
//!
//! Writes: nothing. What [`crate::serve`] does beyond this happens on the node and asks the API server for nothing.

use crate::index::Index;
use crate::surroundings::Surroundings;
use crate::watches::{Change, Kind, ServiceCidrs, Update, updates};
use futures::StreamExt;
use kube::Client;
use rules::Settings;
use std::collections::BTreeSet;

/// What a watch brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Every list is complete and indexed for the first time.
    Synced,
    /// A list was read again, or read for the first time.
    List,
    /// One object changed.
    Event,
}

/// Watches and indexes for ever. `see` is called for each list and each event.
pub async fn run(client: &Client, settings: Settings, mut see: impl FnMut(Seen)) {
    let mut updates = updates(client, &settings.node.name, ServiceCidrs::Watched);
    let mut hollow = Hollow {
        index: Index::new(settings.clone()),
        surroundings: Surroundings::new(settings),
    };
    let mut missing = BTreeSet::from(Kind::ALL);
    while let Some(update) = updates.next().await {
        let listed = update.lists();
        hollow.take(update);
        see(if listed.is_some() { Seen::List } else { Seen::Event });
        if listed.is_some_and(|kind| missing.remove(&kind)) && missing.is_empty() {
            see(Seen::Synced);
        }
        if missing.is_empty() {
            hollow.index.take_stale();
        }
    }
}

struct Hollow {
    index: Index,
    surroundings: Surroundings,
}

impl Hollow {
    fn take(&mut self, update: Update) {
        match update {
            Update::Service(Change::Apply((name, service))) => self.index.apply_service(&name, service),
            Update::Service(Change::Delete((name, _))) => self.index.delete_service(&name),
            Update::Service(Change::Reset(services)) => self.index.reset_services(services),
            Update::Slice(Change::Apply((_, Some(slice)))) => self.index.apply_slice(slice),
            Update::Slice(Change::Apply((name, None)) | Change::Delete((name, _))) => {
                self.index.delete_slice(&name);
            }
            Update::Slice(Change::Reset(slices)) => {
                let slices = slices.into_iter().filter_map(|(_, slice)| slice);
                self.index.reset_slices(slices.collect());
            }
            Update::Pod(Change::Apply((_, Some(pod)))) => self.index.apply_pod(pod),
            Update::Pod(Change::Apply((uid, None)) | Change::Delete((uid, _))) => self.index.delete_pod(&uid),
            Update::Pod(Change::Reset(pods)) => {
                let pods = pods.into_iter().filter_map(|(_, pod)| pod);
                self.index.reset_pods(pods.collect());
            }
            Update::Node(change) => {
                if self.surroundings.node(change) {
                    self.index.apply_settings(self.surroundings.settings());
                }
            }
            Update::ServiceCidr(change) => {
                if self.surroundings.service_cidr(change) {
                    self.index.apply_settings(self.surroundings.settings());
                }
            }
        }
    }
}
