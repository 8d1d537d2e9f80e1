//! A hollow proxy (kubemark's term): the watches and the index of a proxy without a node, to measure what many of them cost an API server.
//!
//! Writes: nothing. All other work of [`crate::serve`] happens on the node and sends no requests to the API server.

use crate::cluster_info::ClusterInfo;
use crate::index::{Index, Kind};
use crate::watch::{ServiceCidrs, updates};
use futures::StreamExt;
use kube::Client;
use rules::Settings;
use std::collections::BTreeSet;

/// Watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Every list is complete and indexed for the first time.
    Synced,
    /// A list was completed, at first or again.
    List,
    /// One object changed.
    Event,
}

/// Runs watches and index forever. `see` is called for each list and each event.
pub async fn run(client: &Client, settings: Settings, mut see: impl FnMut(Seen)) {
    let mut updates = updates(client, &settings.node.name, ServiceCidrs::Watched);
    let mut index = Index::new(settings.clone());
    let mut cluster_info = ClusterInfo::new(settings);
    let mut missing = BTreeSet::from(Kind::ALL);
    while let Some(update) = updates.next().await {
        let listed = update.lists();
        index.update(update, &mut cluster_info);
        see(if listed.is_some() { Seen::List } else { Seen::Event });
        if listed.is_some_and(|kind| missing.remove(&kind)) && missing.is_empty() {
            see(Seen::Synced);
        }
        if missing.is_empty() {
            index.take_stale();
        }
    }
}
