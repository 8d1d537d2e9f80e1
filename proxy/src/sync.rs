//! The driver: what the watches say becomes what the namespaces of this node's pods hold.
//!
//! Writes: through `apply`, one piece of work per pod at a time, in the pod's own namespace on a thread of its own. A change is
//! acted on at once; what arrives for a pod meanwhile is taken together afterwards. A pod that fails, or whose namespace hangs,
//! keeps nobody waiting but itself.

mod attempt;
mod pods;
mod retry;

use crate::backend::Backend;
use crate::events::Notices;
use crate::index::Index;
use crate::metrics::Metrics;
use crate::sandbox::SandboxSource;
use crate::watches::{Change, Update};
use futures::{Stream, StreamExt};
use pods::Pods;
use process::Health;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pods written into at the same time.
const WORKERS: usize = 8;

/// How often the loop shows that it is alive though nothing happens.
const BEAT: Duration = Duration::from_secs(10);

/// How long work under way may take when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What the driver works with.
pub struct Context {
    /// Finds sandboxes.
    pub sandboxes: Arc<dyn SandboxSource>,
    /// Writes rules.
    pub backend: Arc<dyn Backend>,
    /// The sandboxes that were there before this process: an earlier one may have written into them.
    pub earlier: BTreeSet<String>,
    /// Where pods are told what they lack.
    pub notices: Notices,
    /// What is counted.
    pub metrics: Metrics,
    limit: Arc<Semaphore>,
}

impl Context {
    /// Puts it together.
    pub fn new(
        sandboxes: Arc<dyn SandboxSource>,
        backend: Arc<dyn Backend>,
        earlier: BTreeSet<String>,
        notices: Notices,
        metrics: Metrics,
    ) -> Self {
        Self {
            sandboxes,
            backend,
            earlier,
            notices,
            metrics,
            limit: Arc::new(Semaphore::new(WORKERS)),
        }
    }
}

/// Runs until `shutdown`. Rules stay in the kernel: traffic goes on, and the next proxy adopts them.
pub async fn run(
    context: Context,
    updates: impl Stream<Item = Update>,
    health: Health,
    shutdown: CancellationToken,
) {
    let mut sync = Sync {
        index: Index::default(),
        lists: Lists::default(),
        acted: false,
        pods: Pods::new(Arc::new(context)),
        said: BTreeSet::new(),
    };
    let mut beat = tokio::time::interval(BEAT);
    tokio::pin!(updates);
    loop {
        tokio::select! {
            Some(update) = updates.next() => sync.update(update),
            () = sync.pods.progress(&sync.index) => {}
            _ = beat.tick() => {}
            () = shutdown.cancelled() => break,
        }
        health.beat();
        if sync.lists.are_complete() {
            sync.act();
            health.set_ready(sync.pods.tried_all());
        }
    }
    if tokio::time::timeout(DRAIN, sync.pods.drain()).await.is_err() {
        warn!("Stopping although work in a network namespace is unfinished");
    }
}

struct Sync {
    index: Index,
    lists: Lists,
    /// Whether anything was done since the lists are complete.
    acted: bool,
    pods: Pods,
    /// What was said about Services last.
    said: BTreeSet<String>,
}

/// Which first lists have come. Acting on a part of them would remove what only seems to be gone.
#[derive(Default)]
struct Lists {
    services: bool,
    slices: bool,
    pods: bool,
}

impl Lists {
    fn are_complete(&self) -> bool {
        self.services && self.slices && self.pods
    }
}

impl Sync {
    fn update(&mut self, update: Update) {
        match update {
            Update::Service(change) => {
                self.lists.services |= matches!(change, Change::Reset(_));
                match change {
                    Change::Apply((name, service)) => self.index.apply_service(&name, service),
                    Change::Delete((name, _)) => self.index.delete_service(&name),
                    Change::Reset(services) => self.index.reset_services(services),
                }
            }
            Update::Slice(change) => {
                self.lists.slices |= matches!(change, Change::Reset(_));
                match change {
                    Change::Apply((_, Some(slice))) => self.index.apply_slice(slice),
                    Change::Apply((name, None)) | Change::Delete((name, _)) => self.index.delete_slice(&name),
                    Change::Reset(slices) => self
                        .index
                        .reset_slices(slices.into_iter().filter_map(|(_, slice)| slice).collect()),
                }
            }
            Update::Pod(change) => {
                self.lists.pods |= matches!(change, Change::Reset(_));
                match change {
                    Change::Apply((_, Some(pod))) => self.index.apply_pod(pod),
                    Change::Apply((uid, None)) | Change::Delete((uid, _)) => self.index.delete_pod(&uid),
                    Change::Reset(pods) => self
                        .index
                        .reset_pods(pods.into_iter().filter_map(|(_, pod)| pod).collect()),
                }
            }
        }
    }

    /// Starts work for every pod that something changed for.
    fn act(&mut self) {
        let stale = self.index.take_stale();
        if stale.is_empty() && self.acted {
            return;
        }
        if !self.acted {
            self.acted = true;
            self.pods.adopt(&stale);
            info!(pods = stale.len(), "Read the cluster");
        }
        for uid in &stale {
            self.pods.start(uid, &self.index);
        }
        self.say_what_is_not_served();
    }

    fn say_what_is_not_served(&mut self) {
        let services = self
            .index
            .unserved()
            .into_iter()
            .map(|(name, why)| format!("Service \"{name}\" is not served: {why}"));
        let addresses = self.index.refused_addresses().map(ToString::to_string);
        let now: BTreeSet<String> = services.chain(addresses).collect();
        for new in now.difference(&self.said) {
            warn!("{new}");
        }
        self.said = now;
    }
}
