//! Pods of this node, and the work that runs for them.
//!
//! Writes: nothing itself. One piece of work per pod at a time; a change during it leads to one more attempt afterwards.

mod attempts;
mod cleanups;
mod kernel_events;
mod queue;
mod repair;
mod summary;

use super::Context;
use super::flow_cleanup::Cleanups;
use super::netns_state::NetnsState;
use super::pod_state::{Pod, SETTLE};
use super::programming::{Batch, Programming};
use super::repair::RulesetPoll;
use super::shared::Shared;
use super::timers::Timers;
use crate::index::{HOST_UID, Index, Trigger};
use crate::metrics::Failing;
use crate::netlink::monitor::{NamespaceId, NamespaceIds};
use crate::netns::host_network::Parents;
use crate::report::pod_events;
use attempts::Finished;
use cleanups::Cleaned;
use k8s_openapi::jiff::Timestamp;
use kernel_events::Overrun;
use process::error_chain;
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tracing::warn;

/// Resync interval of a pod that has rules: routes disappear when a link goes down.
/// Drift without a notification is repaired within 30 s.
const RESYNC: Duration = Duration::from_secs(25);

/// Resync interval while the netlink monitor runs: repairs drift that causes no notification.
const MONITORED_RESYNC: Duration = Duration::from_mins(5);

/// Most ends of attempts that are handled before other events.
const MOST_AT_ONCE: usize = 64;

/// Pods of this node.
pub(super) struct Pods {
    shared: Arc<Shared>,
    /// Changes of slices that pods have not written yet.
    programming: Programming,
    /// Pods with a change to apply.
    queue: Queue,
    began: Timestamp,
    by_uid: BTreeMap<String, Pod>,
    jobs: JoinSet<Done>,
    cleanups: Cleanups,
    timers: Timers,
    /// UIDs of the pods of the first list that had no attempt yet.
    untried: BTreeSet<String>,
    /// Set while nothing may be written: the pods to start afterwards.
    held_back: Option<BTreeSet<String>>,
    /// The status of a pod changed since the last report.
    has_changed: bool,
    /// The metrics count the pods as they are.
    are_counted: bool,
    by_nsid: BTreeMap<NamespaceId, String>,
    /// The netlink monitor runs.
    has_monitor: bool,
    overrun: Overrun,
    ruleset_poll: RulesetPoll,
    /// Receives the UIDs of pods whose attempt is stuck.
    stuck_uids: mpsc::UnboundedReceiver<String>,
    /// Interfaces of the node that are parents of interfaces of pods.
    parents: Parents,
}

/// Finished work in a pod's namespace.
enum Done {
    Wrote(Finished),
    Cleaned(Cleaned),
}

impl Pods {
    /// `namespace_ids`: set if the netlink monitor runs: pods are polled less often.
    pub(super) fn new(context: Context, namespace_ids: Option<NamespaceIds>) -> Self {
        let (stuck, stuck_uids) = mpsc::unbounded_channel();
        let has_monitor = namespace_ids.is_some();
        let queue = Queue::new(context.reporters.metrics.clone());
        Self {
            shared: Arc::new(Shared::new(context, namespace_ids, stuck)),
            programming: Programming::default(),
            queue,
            began: Timestamp::now(),
            by_uid: BTreeMap::new(),
            jobs: JoinSet::new(),
            cleanups: Cleanups::default(),
            timers: Timers::new(),
            untried: BTreeSet::new(),
            held_back: None,
            has_changed: true,
            are_counted: false,
            by_nsid: BTreeMap::new(),
            has_monitor,
            overrun: Overrun::default(),
            ruleset_poll: RulesetPoll::new(),
            stuck_uids,
            parents: Parents::default(),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The status of the node changed.
    pub(super) fn changed(&mut self) {
        self.has_changed = true;
    }

    /// Attempts follow for these pods, because of changes of slices at these times or of another change.
    pub(super) fn queued(&mut self, uids: &BTreeSet<String>, triggers: Vec<Trigger>) {
        self.queue.add(uids);
        let (metrics, traces) = (&self.shared.reporters.metrics, &self.shared.traces);
        if let Some(batch) = Batch::new(triggers, self.began, Timestamp::now(), (metrics, traces)) {
            for uid in uids {
                self.programming.add(uid, &batch);
            }
        }
    }

    /// Starts no attempt until [`Self::resume`]: another proxy writes.
    pub(super) fn pause(&mut self) {
        self.shared.sandbox_locks.share();
        self.held_back.get_or_insert_default();
    }

    /// Starts the attempts that were held back.
    pub(super) fn resume(&mut self, index: &Index) {
        for uid in self.held_back.take().into_iter().flatten() {
            self.start(&uid, index);
        }
    }

    /// Registers pods that existed before this process: each gets an attempt, because an earlier proxy may have left rules.
    pub(super) fn adopt(&mut self, uids: &BTreeSet<String>) {
        self.untried.clone_from(uids);
    }

    /// Returns true when each pod of the first list had an attempt.
    pub(super) fn tried_all(&self) -> bool {
        self.untried.is_empty()
    }

    /// Waits for the next event: finished work, a due attempt or cleanup, or a result of a poll.
    pub(super) async fn progress(&mut self, index: &mut Index) {
        let rules_are_written = self.jobs.len() > self.cleanups.running();
        tokio::select! {
            Some(done) = self.jobs.join_next() => {
                self.done(done, index);
                // What has ended meanwhile is counted and reported once.
                for _ in 1..MOST_AT_ONCE {
                    let Some(done) = self.jobs.try_join_next() else {
                        break;
                    };
                    self.done(done, index);
                }
            }
            Some(uid) = self.timers.next() => {
                if let Some(pod) = self.by_uid.get_mut(&uid) {
                    pod.fired();
                }
                self.start(&uid, index);
            }
            uid = self.cleanups.next_due(rules_are_written) => self.start_cleanup(&uid, index),
            Some(uid) = self.stuck_uids.recv() => self.stuck(&uid, index),
            () = self.overrun.wait() => self.resync_all(),
            answer = self.ruleset_poll.next() => self.polled(answer),
        }
    }

    /// Lets work under way end, and ends flows that the next proxy could not know of.
    pub(super) async fn drain(&mut self, index: &mut Index) {
        loop {
            self.hurry_cleanups(index);
            let Some(done) = self.jobs.join_next().await else {
                return;
            };
            self.done(done, index);
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>, index: &mut Index) {
        match done {
            Ok(Done::Wrote(finished)) => self.finish(finished, index),
            Ok(Done::Cleaned(cleaned)) => self.cleaned(cleaned, index),
            Err(error) => warn!(error = %error_chain(&error), "Attempt ended without a result"),
        }
    }

    /// The attempt is stuck: the pod counts as tried, so that readiness does not wait for it.
    fn stuck(&mut self, uid: &str, index: &Index) {
        self.untried.remove(uid);
        let pod = self.by_uid.get_mut(uid);
        let pod = pod.filter(|pod| pod.netns_state().is_none());
        if let (Some(pod), Some(local)) = (pod, index.pod(uid)) {
            pod.publish(pod_events::stuck(), local, &self.shared.reporters.event_sender);
        }
        self.has_changed = true;
    }

    /// Forgets a deleted pod. The kernel removes its namespace.
    fn forget(&mut self, uid: &str) {
        self.untried.remove(uid);
        drop(self.programming.take(uid));
        self.queue.leave(uid);
        if let Some(pod) = self.by_uid.remove(uid) {
            pod.abandon(&mut self.timers);
        }
        self.cleanups.unqueue(uid);
        self.by_nsid.retain(|_, of| of != uid);
        if self.parents.forget(uid) {
            self.check_host();
        }
        self.ended();
    }

    /// Returns the pod whose work handed back `netns_state`. `None`: it is deleted, and perhaps recreated under the same UID.
    fn owner(&mut self, uid: &str, netns_state: &NetnsState) -> Option<&mut Pod> {
        let pod = self.by_uid.get_mut(uid)?;
        pod.owns(netns_state).then_some(pod)
    }

    /// Notes a pod whose work has to wait until [`Self::resume`]. Returns false when work may start.
    fn hold_back(&mut self, uid: &str) -> bool {
        let Some(held_back) = &mut self.held_back else {
            return false;
        };
        held_back.insert(uid.to_owned());
        true
    }

    /// Checks the namespace of the node: the networks that may be written there may have changed.
    fn check_host(&mut self) {
        if let Some(node) = self.by_uid.get_mut(HOST_UID) {
            node.check(HOST_UID, SETTLE, &mut self.timers);
        }
    }

    /// The work of a pod ended, or the pod itself.
    fn ended(&mut self) {
        self.has_changed = true;
        self.are_counted = false;
    }

    /// Counts the pods by state, for the metrics, unless nothing has ended since the last call.
    pub(super) fn count(&mut self) {
        if std::mem::replace(&mut self.are_counted, true) {
            return;
        }
        let programmed = self.by_uid.values().filter(|pod| pod.has_rules()).count();
        let mut failing = Failing::default();
        for cause in self
            .by_uid
            .values()
            .filter_map(|pod| pod.failures().lasting_cause())
        {
            failing.add(cause);
        }
        self.shared.reporters.metrics.pods(programmed, failing);
    }
}
