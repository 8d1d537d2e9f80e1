//! Driver: syncs the network namespaces of this node's pods with the API server.
//!
//! Writes: through `apply`, one piece of work per pod at a time, in the pod's own namespace on a thread of its own. A change is
//! handled at once; changes to a pod during its attempt are handled together afterwards. A pod that fails, or whose namespace hangs,
//! does not block others.

mod attempt;
mod backoff;
mod context;
mod flow_cleanup;
mod netns_state;
mod outcome;
mod pod_state;
mod pods;
mod programming;
mod repair;
mod sandbox_locks;
mod shared;
mod status;
mod timers;
mod trace;
mod worker_pool;

pub use context::{Context, Reporters};
pub use worker_pool::{IN_MEMORY_WORKERS, WORKERS};

use crate::cluster_info::ClusterInfo;
use crate::debug_state::StateRequests;
use crate::index::{Index, Kind, Update};
use crate::netlink::monitor::{Monitor, NamespaceIds, Notification};
use futures::{Stream, StreamExt};
use pods::Pods;
use process::{Health, error_chain};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Interval of liveness heartbeats while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Grace period for running attempts at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs until `shutdown`. Rules stay in the kernel: traffic continues, and the next proxy adopts them.
pub async fn run(
    context: Context,
    updates: impl Stream<Item = Update>,
    mut requests: StateRequests,
    health: Health,
    shutdown: CancellationToken,
) {
    let opened = Monitor::open().inspect_err(|error| {
        warn!(error = %error_chain(error), "Netlink notifications are unavailable (they need CAP_NET_BROADCAST); polling every 25 s instead");
    });
    let (mut monitor, namespace_ids) = opened.ok().unzip();
    let mut sync = Sync::new(context, namespace_ids);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    tokio::pin!(updates);
    loop {
        tokio::select! {
            Some(update) = updates.next() => sync.update(update),
            () = sync.pods.progress(&mut sync.index) => {}
            notification = next_notification(monitor.as_mut()) => sync.pods.notified(notification),
            Some(request) = requests.recv() => {
                // The client may have closed the connection.
                let _ = request.send(sync.state(health.is_ready()));
            }
            _ = heartbeat.tick() => {}
            () = shutdown.cancelled() => break,
        }
        health.heartbeat();
        if sync.lists.are_complete() {
            sync.sync_stale_pods();
            health.set_ready(sync.is_ready());
            sync.report();
        }
    }
    sync.drain().await;
}

async fn next_notification(monitor: Option<&mut Monitor>) -> Notification {
    match monitor {
        Some(monitor) => monitor.next().await,
        None => std::future::pending().await,
    }
}

struct Sync {
    index: Index,
    cluster_info: ClusterInfo,
    lists: Lists,
    /// The first sync has started: the lists were complete.
    has_synced: bool,
    pods: Pods,
    /// Messages about Services that were logged last.
    reported: BTreeSet<String>,
    /// UIDs of the pods that were reported as untrusted legacy proxies.
    impostors: BTreeSet<String>,
}

/// First lists that are still missing. A sync before all are complete would remove rules that are still needed.
struct Lists(BTreeSet<Kind>);

impl Lists {
    fn are_complete(&self) -> bool {
        self.0.is_empty()
    }
}

impl Sync {
    fn new(context: Context, namespace_ids: Option<NamespaceIds>) -> Self {
        Self {
            index: Index::new(context.settings.clone())
                .with_legacy_namespaces(context.legacy_namespaces.clone())
                .with_traces(context.traces.clone()),
            cluster_info: ClusterInfo::new(context.settings.clone()),
            lists: Lists(BTreeSet::from(Kind::ALL)),
            has_synced: false,
            pods: Pods::new(context, namespace_ids),
            reported: BTreeSet::new(),
            impostors: BTreeSet::new(),
        }
    }

    fn update(&mut self, update: Update) {
        if let Some(kind) = update.lists() {
            self.lists.0.remove(&kind);
        }
        self.index.update(update, &mut self.cluster_info);
    }

    /// Starts an attempt for every pod that changed. While the legacy proxy runs on this node nothing is written: the two would undo
    /// each other's changes.
    fn sync_stale_pods(&mut self) {
        self.report_impostors();
        if self.index.legacy_proxy().is_some() {
            self.pods.pause();
            return;
        }
        self.pods.resume(&self.index);
        let stale = self.index.take_stale();
        let triggers = self.index.take_triggers();
        if stale.is_empty() && self.has_synced {
            return;
        }
        if !self.has_synced {
            self.has_synced = true;
            self.pods.adopt(&stale);
            info!(
                pods = stale.len(),
                "Received the first lists, starting the initial sync"
            );
        }
        if !stale.is_empty() {
            self.pods.queued(&stale, triggers);
        }
        for uid in &stale {
            self.pods.start(uid, &self.index);
        }
        self.log_unserved();
    }

    /// Lets work under way end, within the grace period.
    async fn drain(&mut self) {
        let drained = tokio::time::timeout(DRAIN, self.pods.drain(&mut self.index)).await;
        if drained.is_err() {
            warn!("Shutdown timed out waiting for work in a network namespace");
        }
    }

    fn is_ready(&self) -> bool {
        self.has_synced && self.pods.tried_all() && self.index.legacy_proxy().is_none()
    }
}
