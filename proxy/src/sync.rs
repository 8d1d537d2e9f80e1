//! The driver: what the watches say becomes what the namespaces of this node's pods hold.
//!
//! Writes: through `apply`, one piece of work per pod at a time, in the pod's own namespace on a thread of its own. A change is
//! acted on at once; what arrives for a pod meanwhile is taken together afterwards. A pod that fails, or whose namespace hangs,
//! keeps nobody waiting but itself.

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

pub use worker_pool::{FILLERS, WORKERS};

use crate::backend::Backend;
use crate::cluster_info::Surroundings;
use crate::container_runtime::SandboxSource;
use crate::debug_state::{Condition, Questions, ServiceNotServed, State};
use crate::index::{Index, default_legacy_namespaces};
use crate::metrics::Metrics;
use crate::netlink::monitor::{Listener, Names, Notification};
use crate::netns::memory::Memory;
use crate::report::node_condition::{Reporter, Verdict};
use crate::report::pod_events::{self, Notices};
use crate::watch::{Kind, Update};
use api::rules_applied::Reason;
use futures::{Stream, StreamExt};
use pod_state::Pods;
use process::Health;
use rules::Settings;
use sandbox_locks::Sandboxes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use worker_pool::Workers;

/// How often the loop shows that it is alive though nothing happens.
const BEAT: Duration = Duration::from_secs(10);

/// How long work under way may take when the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is told how things stand.
pub struct Telling {
    /// Pods, what they lack.
    pub notices: Notices,
    /// The own Pod, how the node stands.
    pub reporter: Reporter,
    /// What is counted.
    pub metrics: Metrics,
}

/// What the driver works with.
pub struct Context {
    /// Finds sandboxes.
    pub sandboxes: Arc<dyn SandboxSource>,
    /// Writes rules.
    pub backend: Arc<dyn Backend>,
    /// Who is told how things stand.
    pub telling: Telling,
    /// What the command line says about node and cluster.
    pub settings: Settings,
    /// Where the archived multus-proxy is believed to run.
    pub legacy_namespaces: BTreeSet<String>,
    /// Where somebody may have written already.
    entered: Sandboxes,
    /// Pods, by UID, in whose namespaces the work does not end.
    hangs: mpsc::UnboundedSender<String>,
    hung: Option<mpsc::UnboundedReceiver<String>>,
    workers: Workers,
    /// Names namespaces to the listener, if there is one.
    names: Option<Names>,
    memory: Memory,
}

impl Context {
    /// Puts it together. `earlier` are the sandboxes that were there before this process: an earlier one may have written into them.
    pub fn new(
        sandboxes: Arc<dyn SandboxSource>,
        backend: Arc<dyn Backend>,
        earlier: BTreeSet<String>,
        telling: Telling,
        settings: Settings,
    ) -> Self {
        let (hangs, hung) = mpsc::unbounded_channel();
        Self {
            sandboxes,
            backend,
            telling,
            settings,
            legacy_namespaces: default_legacy_namespaces(),
            entered: Sandboxes::new(earlier),
            hangs,
            hung: Some(hung),
            workers: Workers::default(),
            names: None,
            memory: Memory::default(),
        }
    }
}

/// Runs until `shutdown`. Rules stay in the kernel: traffic goes on, and the next proxy adopts them.
pub async fn run(
    mut context: Context,
    updates: impl Stream<Item = Update>,
    mut questions: Questions,
    health: Health,
    shutdown: CancellationToken,
) {
    let opened = Listener::open().inspect_err(|error| {
        warn!(%error, "The kernel does not tell of changes by others, is CAP_NET_BROADCAST granted? Looking every 25 s");
    });
    let (mut listener, names) = opened.ok().unzip();
    context.names = names;
    let mut sync = Sync {
        index: Index::new(context.settings.clone()).with_legacy_namespaces(context.legacy_namespaces.clone()),
        surroundings: Surroundings::new(context.settings.clone()),
        lists: Lists(BTreeSet::from(Kind::ALL)),
        acted: false,
        pods: Pods::new(context),
        said: BTreeSet::new(),
        impostors: BTreeSet::new(),
    };
    if listener.is_some() {
        sync.pods.listens();
    }
    let mut beat = tokio::time::interval(BEAT);
    tokio::pin!(updates);
    loop {
        tokio::select! {
            Some(update) = updates.next() => sync.update(update),
            () = sync.pods.progress(&mut sync.index) => {}
            notification = heard(listener.as_mut()) => sync.pods.heard(notification),
            Some(question) = questions.recv() => {
                // Whoever asked may have gone.
                let _ = question.send(sync.state(health.is_ready()));
            }
            _ = beat.tick() => {}
            () = shutdown.cancelled() => break,
        }
        health.beat();
        if sync.lists.are_complete() {
            sync.act();
            health.set_ready(sync.is_ready());
            sync.report();
        }
    }
    if tokio::time::timeout(DRAIN, sync.pods.drain(&mut sync.index))
        .await
        .is_err()
    {
        warn!("Stopping although work in a network namespace is unfinished");
    }
}

async fn heard(listener: Option<&mut Listener>) -> Notification {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}

struct Sync {
    index: Index,
    surroundings: Surroundings,
    lists: Lists,
    /// Whether anything was done since the lists are complete.
    acted: bool,
    pods: Pods,
    /// What was said about Services last.
    said: BTreeSet<String>,
    /// Pods, by UID, that were reported for looking like the archived multus-proxy.
    impostors: BTreeSet<String>,
}

/// Which first lists have not come yet. Acting on a part of them would remove what only seems to be gone.
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
        self.index.update(update, &mut self.surroundings);
    }

    /// Starts work for every pod that something changed for. Beside the original proxy nothing is written: both would undo, time and
    /// again, what the other did.
    fn act(&mut self) {
        self.report_impostors();
        if self.index.original_proxy().is_some() {
            self.pods.hold();
            return;
        }
        self.pods.go_on(&self.index);
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

    /// Once each: the condition says it as long as they are there, even if the queue of Events has no room.
    fn report_impostors(&mut self) {
        let now = self.index.impostors();
        if now.keys().eq(&self.impostors) {
            return;
        }
        let notices = &self.pods.context().telling.notices;
        for (uid, name) in now.iter().filter(|(uid, _)| !self.impostors.contains(*uid)) {
            notices.send_to(name, uid, pod_events::impostor(name));
        }
        self.impostors = now.keys().cloned().collect();
        self.pods.changed = true;
    }

    fn is_ready(&self) -> bool {
        self.acted && self.pods.tried_all() && self.index.original_proxy().is_none()
    }

    /// Says how the node stands, when anything happened to a pod.
    fn report(&mut self) {
        let verdict = match self.index.original_proxy() {
            Some(name) => Verdict::of_the_node(
                Reason::LegacyProxyRunning,
                &format!(
                    "pod {name} runs the archived multus-proxy on this node and serves the same Services: nothing is written until its DaemonSet is deleted"
                ),
            ),
            None if !self.pods.tried_all() => return,
            None => match self.pods.verdict(&self.index) {
                Some(verdict) => verdict,
                None => return,
            },
        };
        self.pods.context().telling.reporter.report(verdict);
    }

    fn state(&self, ready: bool) -> State {
        let Verdict {
            holds,
            reason,
            message,
        } = self.pods.context().telling.reporter.current();
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

    fn say_what_is_not_served(&mut self) {
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
        for new in now.difference(&self.said) {
            warn!("{new}");
        }
        self.said = now;
    }
}
