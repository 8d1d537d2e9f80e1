//! State of each pod of this node: syncing, scheduled for its next attempt, or idle.
//!
//! Writes: nothing itself. One attempt per pod at a time; a change during it leads to one more afterwards.

use super::Context;
use super::attempt::{Error, NetnsState, attempt};
use super::backoff;
use super::flow_cleanup::{Cleaned, Cleanups, Deferred};
use super::kernel_events::{Overrun, SETTLE};
use super::poll_interval::CheckBackoff;
use super::ruleset_poll::RulesetPoll;
use crate::backend::KnownRules;
use crate::index::{HOST_UID, Index, LocalPod};
use crate::netlink::monitor::NamespaceId;
use crate::netns::apply::Applied;
use crate::netns::failure::chain;
use crate::netns::host_network::Parents;
use crate::report::pod_events::{self, EventSender, PodEvent};
use futures::{FutureExt, StreamExt};
use process::events::{self, EventThrottle};
use rules::Shortcoming;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;
use tracing::{debug, info, warn};

/// Resync interval of a pod that has rules: routes disappear when a link goes down.
/// Drift without a notification is repaired within 30 s.
const RESYNC: Duration = Duration::from_secs(25);

/// Resync interval while the netlink monitor runs: repairs drift that causes no notification.
const MONITORED_RESYNC: Duration = Duration::from_mins(5);

/// Delay until a pod whose rules were rebuilt unread is checked again: if the rules are intact, the Event ends.
const REBUILT: Duration = Duration::from_secs(5);

/// Pods of this node.
pub(super) struct Pods {
    pub(super) context: Arc<Context>,
    pub(super) by_uid: BTreeMap<String, Pod>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) cleanups: Cleanups,
    pub(super) due: DelayQueue<String>,
    /// UIDs of the pods of the first list that had no attempt yet.
    untried: BTreeSet<String>,
    /// Set while nothing may be written: the pods to start afterwards.
    pub(super) held_back: Option<BTreeSet<String>>,
    /// The status of a pod changed since the last report.
    pub(super) has_changed: bool,
    pub(super) by_nsid: BTreeMap<NamespaceId, String>,
    /// The netlink monitor runs.
    pub(super) has_monitor: bool,
    pub(super) overrun: Overrun,
    pub(super) ruleset_poll: RulesetPoll,
    /// Receives the UIDs of pods whose attempt is stuck.
    stuck_uids: mpsc::UnboundedReceiver<String>,
    /// Interfaces of the node that are parents of interfaces of pods.
    parents: Parents,
}

#[derive(Default)]
pub(super) struct Pod {
    pub(super) name: String,
    /// `None` during an attempt.
    pub(super) netns_state: Option<NetnsState>,
    /// The pod changed during the attempt: another one follows.
    pub(super) needs_rerun: bool,
    /// Time since which another process may have changed routes.
    pub(super) routes_dirty_since: Option<Instant>,
    /// Another process changed nftables rules, perhaps ours, since the last check.
    pub(super) are_rules_dirty: bool,
    /// Backoff of checks of these rules.
    pub(super) check_backoff: CheckBackoff,
    /// Shared with the thread that reads the generation of its rules.
    pub(super) polling: Arc<()>,
    pub(super) failures: u32,
    /// Start of the first of these failures.
    failing_since: Option<Instant>,
    pub(super) due: Option<Key>,
    /// Set if `due` is a check after a change by another process: its time.
    pub(super) check_at: Option<Instant>,
    sandbox_mark: String,
    /// Sandbox in which the rules were complete.
    synced_sandbox: Option<String>,
    pub(super) has_rules: bool,
    /// Events on the pod.
    pub(super) event_throttle: EventThrottle<PodEvent>,
    /// Flows that are still to be deleted.
    pub(super) deferred: Option<Deferred>,
    /// Time of the last cleanup of flows.
    pub(super) cleaned: Option<Instant>,
    /// Set when the pod is deleted, for the running attempt.
    is_abandoned: Arc<AtomicBool>,
    /// Error of the last attempt.
    pub(super) failure: Option<String>,
    /// Error of the container runtime in the last attempt.
    pub(super) runtime_failure: Option<String>,
}

/// Finished work in a pod's namespace.
pub(super) enum Done {
    Wrote(Finished),
    Cleaned(Cleaned),
}

/// Finished attempt. Flows may still have to be deleted.
pub(super) struct Finished {
    pod: LocalPod,
    netns_state: NetnsState,
    outcome: Outcome,
}

/// Result of an attempt.
pub(super) struct Outcome {
    shortcomings: BTreeSet<Shortcoming>,
    wants_rules: bool,
    /// The rules of the namespace were not known before.
    was_unknown: bool,
    began: Instant,
    took: Duration,
    /// See [`NetnsState::is_disturbed`].
    is_disturbed: bool,
    pub(super) result: Result<Applied, Error>,
}

impl Pods {
    pub(super) fn new(mut context: Context) -> Self {
        let stuck_uids = context.stuck_pods.take().expect("a context is used once");
        Self {
            context: Arc::new(context),
            by_uid: BTreeMap::new(),
            jobs: JoinSet::new(),
            cleanups: Cleanups::default(),
            due: DelayQueue::new(),
            untried: BTreeSet::new(),
            held_back: None,
            has_changed: true,
            by_nsid: BTreeMap::new(),
            has_monitor: false,
            overrun: Overrun::default(),
            ruleset_poll: RulesetPoll::new(),
            stuck_uids,
            parents: Parents::default(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Starts no attempt until [`Self::resume`]: another proxy writes.
    pub(super) fn pause(&mut self) {
        self.context.sandbox_locks.share();
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
            Some(finished) = self.jobs.join_next() => match finished {
                Ok(Done::Wrote(finished)) => self.finish(finished, index),
                Ok(Done::Cleaned(cleaned)) => self.cleaned(cleaned, index),
                Err(error) => warn!(%error, "Attempt ended without a result"),
            },
            Some(due) = self.due.next() => {
                let uid = due.into_inner();
                if let Some(pod) = self.by_uid.get_mut(&uid) {
                    pod.due = None;
                    pod.routes_dirty_since = Some(Instant::now());
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
            match self.jobs.join_next().await {
                Some(Ok(Done::Wrote(finished))) => self.finish(finished, index),
                Some(Ok(Done::Cleaned(cleaned))) => self.cleaned(cleaned, index),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Starts an attempt for a pod, after the running one if there is one.
    pub(super) fn start(&mut self, uid: &str, index: &Index) {
        if let Some(held_back) = &mut self.held_back {
            held_back.insert(uid.to_owned());
            return;
        }
        self.has_changed = true;
        let Some(local) = index.pod(uid) else {
            return self.forget(uid);
        };
        let pod = self
            .by_uid
            .entry(uid.to_owned())
            .or_insert_with(|| Pod::new(local.name.to_string()));
        if let Some(key) = pod.due.take() {
            self.due.remove(&key);
        }
        let Some(mut netns_state) = pod.netns_state.take() else {
            pod.needs_rerun = true;
            return;
        };
        let are_routes_dirty = pod.check_at.take().is_some() | pod.routes_dirty_since.take().is_some();
        if pod.are_rules_dirty {
            netns_state.held = KnownRules::Unknown;
        }
        // Routes are checked at this interval no matter how often endpoints change.
        let resync_in = if self.has_monitor && netns_state.nsid.is_some() {
            MONITORED_RESYNC
        } else {
            RESYNC
        };
        if are_routes_dirty
            || netns_state
                .routes_checked_at()
                .is_none_or(|looked| looked.elapsed() > resync_in)
        {
            netns_state.forget_routes();
        }
        let (mut rules, mut shortcomings) = index.plan(local);
        if local.is_host {
            let (allowed, rejected) = self.parents.allowed(self.context.backend.as_ref(), rules, local);
            rules = allowed;
            shortcomings.extend(rejected);
        }
        if rules.is_empty() && netns_state.is_untouched() && !self.untried.contains(uid) {
            pod.netns_state = Some(netns_state);
            let event = pod_events::nothing_written(local, &shortcomings);
            if !pod.publish(event, local, &self.context.reporters.event_sender) {
                pod.due = Some(self.due.insert(local.uid.clone(), events::PAUSE));
            }
            return;
        }
        if pod.sandbox_mark != local.sandbox_mark {
            pod.sandbox_mark.clone_from(&local.sandbox_mark);
            netns_state.sandbox = None;
        }
        let (context, local) = (Arc::clone(&self.context), local.clone());
        self.unqueue_cleanup(uid);
        self.jobs.spawn(async move {
            let was_unknown = !matches!(netns_state.held, KnownRules::Exactly(_));
            let (wants_rules, began) = (!rules.is_empty(), Instant::now());
            // An attempt that panicked is retried like any other; the state of the namespace is unknown.
            let attempt = AssertUnwindSafe(attempt(&context, &local, rules, &mut netns_state)).catch_unwind();
            let result = attempt.await.unwrap_or(Err(Error::Lost));
            let is_disturbed = netns_state.is_disturbed;
            let outcome = Outcome {
                shortcomings,
                wants_rules,
                was_unknown,
                began,
                took: began.elapsed(),
                is_disturbed,
                result,
            };
            Done::Wrote(Finished {
                pod: local,
                netns_state,
                outcome,
            })
        });
    }

    /// The attempt is stuck: the pod counts as tried, so that readiness does not wait for it.
    fn stuck(&mut self, uid: &str, index: &Index) {
        self.untried.remove(uid);
        let pod = self.by_uid.get_mut(uid).filter(|pod| pod.netns_state.is_none());
        if let (Some(pod), Some(local)) = (pod, index.pod(uid)) {
            pod.publish(pod_events::stuck(), local, &self.context.reporters.event_sender);
        }
        self.has_changed = true;
    }

    /// Forgets a deleted pod. The kernel removes its namespace.
    fn forget(&mut self, uid: &str) {
        self.untried.remove(uid);
        if let Some(pod) = self.by_uid.remove(uid) {
            pod.is_abandoned.store(true, Ordering::Release);
            if let Some(key) = pod.due {
                self.due.remove(&key);
            }
        }
        self.unqueue_cleanup(uid);
        self.by_nsid.retain(|_, of| of != uid);
        if self.parents.forget(uid) {
            self.check_host();
        }
        self.update_metrics();
    }

    fn finish(&mut self, finished: Finished, index: &mut Index) {
        let Finished {
            pod: local,
            mut netns_state,
            outcome,
        } = finished;
        self.untried.remove(&local.uid);
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        if let Some(id) = netns_state.nsid {
            // Ids are reused: the latest owner is the right one.
            let before = self.by_nsid.insert(id, local.uid.clone());
            if before.as_ref() != Some(&local.uid) {
                // Notifications about this namespace were dropped until now: what was read of it may have changed.
                pod.routes_dirty_since.get_or_insert_with(Instant::now);
            }
        }
        if let (KnownRules::Exactly(held), true) = (&mut netns_state.held, outcome.was_unknown) {
            index.adopt(held);
        }
        let sandbox = netns_state.sandbox_id().map(str::to_owned);
        pod.synced_sandbox
            .take_if(|settled| sandbox.as_ref() != Some(settled));
        if std::mem::take(&mut pod.are_rules_dirty) | outcome.is_disturbed {
            let is_repaired = outcome.result.as_ref().is_ok_and(|applied| applied.written);
            pod.check_backoff
                .checked(is_repaired, netns_state.took, Instant::now());
        }
        pod.netns_state = Some(netns_state);
        let shown = outcome.result.as_ref().map(|applied| &applied.parents);
        let has_new_parents = shown.is_ok_and(|shown| self.parents.note(&local.uid, shown));
        if let Ok(applied) = &outcome.result {
            pod.has_rules = !applied.rules.is_empty();
            log_written(&local, applied);
        }
        let concluded = Deferred::after(&mut pod.deferred, outcome, sandbox.as_deref(), Instant::now());
        let is_deferred = concluded.is_none();
        if is_deferred && self.has_overdue_cleanup(&local.uid) {
            // Changes may follow each other without end: the next attempt starts after the cleanup.
            self.start_cleanup(&local.uid, index);
        } else if is_deferred && self.takes_another_attempt(&local.uid) {
            self.start(&local.uid, index);
        } else if is_deferred {
            self.queue_cleanup(&local.uid);
        }
        if let Some(outcome) = concluded {
            self.conclude(&local, outcome, index);
        }
        if has_new_parents {
            self.check_host();
        }
        self.update_metrics();
    }

    /// Returns true when the pod changed during its attempt.
    fn takes_another_attempt(&mut self, uid: &str) -> bool {
        let pod = self.by_uid.get_mut(uid);
        pod.is_some_and(|pod| std::mem::take(&mut pod.needs_rerun))
    }

    /// Reports the result of an attempt and its cleanup, and schedules the next attempt.
    pub(super) fn conclude(&mut self, local: &LocalPod, outcome: Outcome, index: &Index) {
        let Outcome {
            shortcomings,
            wants_rules,
            began,
            took,
            is_disturbed,
            result,
            ..
        } = outcome;
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        let sandbox = pod
            .netns_state
            .as_ref()
            .and_then(NetnsState::sandbox_id)
            .map(str::to_owned);
        pod.failure = match &result {
            Ok(applied) => pod_events::incomplete(applied),
            Err(error) => Some(chain(error)),
        };
        pod.runtime_failure = result.as_ref().err().and_then(Error::runtime_error);
        let resync_in =
            if self.has_monitor && !local.is_host && self.context.backend.reports_ruleset_changes() {
                MONITORED_RESYNC
            } else {
                RESYNC
            };
        let next = pod.evaluate(local, wants_rules, &result, resync_in);
        if pod.failures == 0 && pod.has_rules {
            pod.synced_sandbox = sandbox;
        }
        // A namespace whose owner delays us is retried later.
        let is_slow = match &result {
            Ok(applied) => !applied.failures.is_empty(),
            Err(error) => error.is_netns_fault(),
        };
        let next = next.map(|next| {
            if is_slow {
                backoff::after_slow_attempt(next, took)
            } else {
                next
            }
        });
        pod.failing_since = (pod.failures > 0).then(|| pod.failing_since.unwrap_or(began));
        log(local, pod.failures, &result);
        let is_rebuilt = result.as_ref().is_ok_and(|applied| !applied.unread.is_empty());
        let is_final = result.as_ref().is_err_and(Error::is_final);
        let fails = match &result {
            Ok(applied) => applied.conntrack.is_some() || !applied.failures.is_empty(),
            Err(_) => !is_final,
        };
        if fails {
            self.context.reporters.metrics.failed();
        }
        let event = pod_events::of_attempt(
            local,
            &shortcomings,
            result.as_ref().map_err(|error| chain(error)),
            pod.is_failing() || is_final && wants_rules,
        );
        let is_published = pod.publish(event, local, &self.context.reporters.event_sender);
        let next = if is_published {
            next
        } else {
            Some(next.unwrap_or(events::PAUSE))
        };
        if std::mem::take(&mut pod.needs_rerun) {
            self.start(&local.uid, index);
        } else if let Some(next) = next {
            let soon = SETTLE.max(pod.check_backoff.wait(Instant::now()));
            let soon = if is_slow {
                backoff::after_slow_attempt(soon, took)
            } else {
                soon
            };
            let next = if is_disturbed { next.min(soon) } else { next };
            let next = if is_rebuilt { next.min(REBUILT) } else { next };
            self.retry_in(&local.uid, next);
        }
        self.update_metrics();
    }

    /// Schedules an attempt after `wait` unless an earlier one is scheduled.
    fn retry_in(&mut self, uid: &str, wait: Duration) {
        let Some(pod) = self.by_uid.get_mut(uid) else {
            return;
        };
        if let Some(key) = pod.due.take() {
            if self.due.deadline(&key).into_std() <= Instant::now() + wait {
                pod.due = Some(key);
                return;
            }
            self.due.remove(&key);
        }
        pod.due = Some(self.due.insert(uid.to_owned(), wait));
    }

    /// Checks the namespace of the node: the networks that may be written there may have changed.
    fn check_host(&mut self) {
        let Some(node) = self.by_uid.get_mut(HOST_UID) else {
            return;
        };
        if node.netns_state.is_none() {
            node.needs_rerun = true;
        } else {
            self.check_within(HOST_UID, SETTLE);
        }
    }

    fn update_metrics(&mut self) {
        self.has_changed = true;
        let programmed = self.by_uid.values().filter(|pod| pod.has_rules).count();
        let failing = self.by_uid.values().filter(|pod| pod.is_failing()).count();
        self.context.reporters.metrics.pods(programmed, failing);
    }
}

impl Pod {
    fn new(name: String) -> Self {
        let netns_state = NetnsState::default();
        Self {
            name,
            is_abandoned: Arc::clone(&netns_state.is_abandoned),
            netns_state: Some(netns_state),
            ..Self::default()
        }
    }

    /// Returns true when the pod has failed for longer than a pod takes to start.
    pub(super) fn is_failing(&self) -> bool {
        let lasting = self.failing_since.map(|since| since.elapsed());
        backoff::is_reportable(self.failures, lasting.unwrap_or_default())
    }

    /// Schedules another attempt after the running one, routes included.
    pub(super) fn check_after_attempt(&mut self) {
        self.needs_rerun = true;
        self.routes_dirty_since = Some(Instant::now());
    }

    /// Publishes an Event unless it is unchanged; returns false when the Event has to be retried.
    fn publish(&mut self, event: Option<PodEvent>, local: &LocalPod, event_sender: &EventSender) -> bool {
        let send = |notice: &PodEvent| event_sender.send(local, notice.clone());
        self.event_throttle.publish(event, Instant::now(), send);
        self.event_throttle.is_published()
    }

    /// Evaluates the result of an attempt; returns the delay of the next attempt, if there is one.
    fn evaluate(
        &mut self,
        local: &LocalPod,
        wants_rules: bool,
        result: &Result<Applied, Error>,
        resync_in: Duration,
    ) -> Option<Duration> {
        match result {
            Ok(applied) => {
                self.has_rules = !applied.rules.is_empty();
                if applied.is_complete() {
                    self.failures = 0;
                    return self.has_rules.then_some(resync_in);
                }
                Some(self.fail(true))
            }
            // Without wanted rules, a namespace that does not exist or cannot be identified yet is no failure.
            Err(error) if error.is_absence() && !wants_rules => None,
            Err(error) if error.is_unidentified() && !wants_rules && local.addresses.is_empty() => None,
            // Only a new sandbox or a change of the rules starts another attempt.
            Err(error) if error.is_final() => None,
            Err(error) => {
                let next = self.fail(error.is_netns_fault());
                debug!(pod = %local.name, failures = self.failures, "Scheduled a retry");
                Some(next)
            }
        }
    }

    /// Counts a failure; returns the delay of the retry. A pod without its namespace counts as starting.
    fn fail(&mut self, is_netns_fault: bool) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if is_netns_fault && self.synced_sandbox.is_some() {
            backoff::repair_delay(self.failures)
        } else {
            backoff::startup_delay(self.failures)
        }
    }
}

fn log_written(pod: &LocalPod, applied: &Applied) {
    if !applied.failures.is_empty() {
        return;
    }
    if applied.written {
        info!(pod = %pod.name, vips = applied.rules.vip_count(), "Synced rules");
    } else {
        debug!(pod = %pod.name, "Rules are up to date");
    }
}

fn log(pod: &LocalPod, failures: u32, result: &Result<Applied, Error>) {
    match result {
        Ok(Applied {
            conntrack: Some(why), ..
        }) => {
            warn!(pod = %pod.name, failures, why, "Failed to delete conntrack entries for removed endpoints");
        }
        Ok(applied) if !applied.failures.is_empty() => {
            if failures == 1 || failures.is_multiple_of(50) {
                let why = applied.failures.iter().map(ToString::to_string);
                let why = why.collect::<Vec<_>>().join("; ");
                warn!(pod = %pod.name, failures, why, "Synced rules partially");
            }
        }
        Ok(_) => {}
        Err(error) if failures == 1 && !error.is_absence() || failures.is_multiple_of(50) => {
            warn!(pod = %pod.name, failures, error = error as &dyn std::error::Error, "Failed to sync rules");
        }
        Err(error) => debug!(pod = %pod.name, failures, %error, "Failed to sync rules"),
    }
}

#[cfg(test)]
mod tests;
