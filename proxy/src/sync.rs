//! Driver: syncs the network namespaces of this node's pods with the API server.
//!
//! Writes: through `apply`, one piece of work per pod at a time, in the pod's own namespace on a thread of its own. A change is
//! handled at once; changes to a pod during its attempt are handled together afterwards. A pod that fails, or whose namespace hangs,
//! does not block others.

mod attempt;
mod backoff;
mod flow_cleanup;
mod kernel_events;
mod pod_state;
mod poll_interval;
mod ruleset_poll;
mod sandbox_locks;
mod summary;
mod worker_pool;

pub use worker_pool::{IN_MEMORY_WORKERS, WORKERS};

use crate::backend::Backend;
use crate::cluster_info::ClusterInfo;
use crate::container_runtime::SandboxSource;
use crate::debug_state::{Condition, ServiceNotServed, State, StateRequests};
use crate::index::{Index, Kind, Update, default_legacy_namespaces};
use crate::metrics::Metrics;
use crate::netlink::monitor::{Monitor, NamespaceIds, Notification};
use crate::netns::memory::Memory;
use crate::report::node_condition::{NodeCondition, Reporter};
use crate::report::pod_events::{self, EventSender};
use api::rules_applied::Reason;
use futures::{Stream, StreamExt};
use pod_state::Pods;
use process::Health;
use rules::Settings;
use sandbox_locks::SandboxLocks;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use worker_pool::WorkerPool;

/// Interval of liveness heartbeats while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Grace period for running attempts at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Outputs that report the status of the node and its pods.
pub struct Reporters {
    /// Events on pods.
    pub event_sender: EventSender,
    /// Condition on the own Pod.
    pub reporter: Reporter,
    /// Metrics.
    pub metrics: Metrics,
}

/// Dependencies of the driver.
pub struct Context {
    /// Container runtime.
    pub sandboxes: Arc<dyn SandboxSource>,
    /// Backend that writes rules.
    pub backend: Arc<dyn Backend>,
    /// Reporters.
    pub reporters: Reporters,
    /// Settings of the command line.
    pub settings: Settings,
    /// Namespaces in which the archived multus-service proxy is recognized.
    pub legacy_namespaces: BTreeSet<String>,
    /// Locks and origin of sandboxes.
    sandbox_locks: SandboxLocks,
    /// Reports the UIDs of pods whose attempt is stuck.
    stuck: mpsc::UnboundedSender<String>,
    stuck_pods: Option<mpsc::UnboundedReceiver<String>>,
    worker_pool: WorkerPool,
    /// Assigns namespace ids for the netlink monitor, if it runs.
    namespace_ids: Option<NamespaceIds>,
    memory: Memory,
}

impl Context {
    /// Creates a context. `earlier` lists the sandboxes that existed before this process: an earlier proxy may have written into them.
    pub fn new(
        sandboxes: Arc<dyn SandboxSource>,
        backend: Arc<dyn Backend>,
        earlier: BTreeSet<String>,
        reporters: Reporters,
        settings: Settings,
    ) -> Self {
        let (stuck, stuck_pods) = mpsc::unbounded_channel();
        Self {
            sandboxes,
            backend,
            reporters,
            settings,
            legacy_namespaces: default_legacy_namespaces(),
            sandbox_locks: SandboxLocks::new(earlier),
            stuck,
            stuck_pods: Some(stuck_pods),
            worker_pool: WorkerPool::default(),
            namespace_ids: None,
            memory: Memory::default(),
        }
    }
}

/// Runs until `shutdown`. Rules stay in the kernel: traffic continues, and the next proxy adopts them.
pub async fn run(
    mut context: Context,
    updates: impl Stream<Item = Update>,
    mut requests: StateRequests,
    health: Health,
    shutdown: CancellationToken,
) {
    let opened = Monitor::open().inspect_err(|error| {
        warn!(%error, "Netlink notifications are unavailable (they need CAP_NET_BROADCAST); polling every 25 s instead");
    });
    let (mut monitor, namespace_ids) = opened.ok().unzip();
    context.namespace_ids = namespace_ids;
    let mut sync = Sync {
        index: Index::new(context.settings.clone()).with_legacy_namespaces(context.legacy_namespaces.clone()),
        cluster_info: ClusterInfo::new(context.settings.clone()),
        lists: Lists(BTreeSet::from(Kind::ALL)),
        has_synced: false,
        pods: Pods::new(context),
        reported: BTreeSet::new(),
        impostors: BTreeSet::new(),
    };
    if monitor.is_some() {
        sync.pods.monitor_started();
    }
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
    if tokio::time::timeout(DRAIN, sync.pods.drain(&mut sync.index))
        .await
        .is_err()
    {
        warn!("Shutdown timed out waiting for work in a network namespace");
    }
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
        for uid in &stale {
            self.pods.start(uid, &self.index);
        }
        self.log_unserved();
    }

    /// Sends one Event per impostor. The condition names them for as long as they exist, even if the queue of Events is full.
    fn report_impostors(&mut self) {
        let now = self.index.impostors();
        if now.keys().eq(&self.impostors) {
            return;
        }
        let event_sender = &self.pods.context().reporters.event_sender;
        for (uid, name) in now.iter().filter(|(uid, _)| !self.impostors.contains(*uid)) {
            event_sender.send_to(name, uid, pod_events::impostor(name));
        }
        self.impostors = now.keys().cloned().collect();
        self.pods.has_changed = true;
    }

    fn is_ready(&self) -> bool {
        self.has_synced && self.pods.tried_all() && self.index.legacy_proxy().is_none()
    }

    /// Updates the condition after a pod has changed.
    fn report(&mut self) {
        let condition = match self.index.legacy_proxy() {
            Some(name) => NodeCondition::not_applied(
                Reason::LegacyProxyRunning,
                &format!(
                    "Pod {name} runs the archived multus-service proxy on this node and serves the same Services; no rules are written until its DaemonSet is deleted"
                ),
            ),
            None if !self.pods.tried_all() => return,
            None => match self.pods.condition(&self.index) {
                Some(condition) => condition,
                None => return,
            },
        };
        self.pods.context().reporters.reporter.report(condition);
    }

    fn state(&self, ready: bool) -> State {
        let NodeCondition {
            holds,
            reason,
            message,
        } = self.pods.context().reporters.reporter.current();
        let not_served = self.index.unserved().into_iter();
        let not_served = not_served.map(|(service, why)| (service, why.to_string()));
        let not_served = not_served.chain(self.index.without_affinity());
        State {
            backend: self.pods.context().backend.name(),
            ready,
            zone: self.index.settings().node.zone.clone(),
            service_cidrs: self.index.settings().reserved.service_cidrs.clone(),
            condition: Condition {
                status: holds,
                reason: reason.as_str(),
                message,
            },
            pods: self.pods.state(&self.index),
            services_not_served: not_served
                .map(|(service, why)| ServiceNotServed {
                    service: service.to_string(),
                    why,
                })
                .collect(),
            invalid_addresses: self
                .index
                .invalid_addresses()
                .map(|rejected| rejected.to_string())
                .collect(),
        }
    }

    fn log_unserved(&mut self) {
        let services = self
            .index
            .unserved()
            .into_iter()
            .map(|(name, why)| format!("Service \"{name}\" is not served: {why}"));
        let addresses = self
            .index
            .invalid_addresses()
            .map(|rejected| rejected.to_string());
        let affinity = self.index.without_affinity().map(|(_, why)| why);
        let now: BTreeSet<String> = services.chain(addresses).chain(affinity).collect();
        for new in now.difference(&self.reported) {
            warn!("{new}");
        }
        self.reported = now;
    }
}
