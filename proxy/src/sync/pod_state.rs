//! Where each pod of this node stands: at work, waiting for its next attempt, or done.
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
use crate::report::event_throttle::{self, EventThrottle};
use crate::report::pod_events::{self, EventSender, PodEvent};
use futures::{FutureExt, StreamExt};
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

/// How often a pod that has rules is looked at though nothing changed: routes go when a link goes down.
/// What nobody tells of is mended within 30 s by that.
const RESYNC: Duration = Duration::from_secs(25);

/// The same when the kernel tells of changes: against what could not be told.
const MONITORED_RESYNC: Duration = Duration::from_mins(5);

/// When a pod whose rules were rebuilt unread is looked at again: if the rules hold, the report ends.
const REBUILT: Duration = Duration::from_secs(5);

/// All pods the driver knows.
pub(super) struct Pods {
    pub(super) context: Arc<Context>,
    pub(super) by_uid: BTreeMap<String, Pod>,
    pub(super) jobs: JoinSet<Done>,
    pub(super) cleanups: Cleanups,
    pub(super) due: DelayQueue<String>,
    /// Pods of the first list that nothing was tried for yet.
    untried: BTreeSet<String>,
    /// While nothing may be written: the pods to start afterwards.
    pub(super) held_back: Option<BTreeSet<String>>,
    /// Whether anything happened since the last verdict.
    pub(super) has_changed: bool,
    pub(super) by_nsid: BTreeMap<NamespaceId, String>,
    /// Whether the kernel tells of changes by others.
    pub(super) has_monitor: bool,
    pub(super) overrun: Overrun,
    pub(super) ruleset_poll: RulesetPoll,
    /// Pods in whose namespaces the work does not end.
    stuck_pods: mpsc::UnboundedReceiver<String>,
    /// What is known of interfaces of the node that pods' are on.
    parents: Parents,
}

#[derive(Default)]
pub(super) struct Pod {
    pub(super) name: String,
    /// `None` while at work.
    pub(super) netns_state: Option<NetnsState>,
    pub(super) needs_rerun: bool,
    /// Since when others may have changed routes without our having looked.
    pub(super) routes_dirty_since: Option<Instant>,
    /// Whether others changed rules, ours perhaps, since they were looked at.
    pub(super) are_rules_dirty: bool,
    /// When to look at them.
    pub(super) check_backoff: CheckBackoff,
    /// Shared with the thread that asks for the generation of its rules.
    pub(super) polling: Arc<()>,
    pub(super) failures: u32,
    /// When the first of these failures began.
    failing_since: Option<Instant>,
    pub(super) due: Option<Key>,
    /// If `due` is about a change by others: when that is.
    pub(super) check_at: Option<Instant>,
    sandbox_mark: String,
    /// The sandbox in which it was served in full.
    synced_sandbox: Option<String>,
    pub(super) has_rules: bool,
    /// What it was told, so that it is not repeated.
    pub(super) event_throttle: EventThrottle,
    /// Flows that are still to be ended.
    pub(super) deferred: Option<Deferred>,
    /// When that was done last.
    pub(super) cleaned: Option<Instant>,
    /// Set when the pod is gone, for the attempt under way.
    is_abandoned: Arc<AtomicBool>,
    /// Why the last attempt failed.
    pub(super) failure: Option<String>,
    /// What the runtime did not do at the last attempt.
    pub(super) runtime_failure: Option<String>,
}

/// Work in a pod's namespace that ended.
pub(super) enum Done {
    Wrote(Finished),
    Cleaned(Cleaned),
}

/// An attempt that ended. Flows may still have to be ended.
pub(super) struct Finished {
    pod: LocalPod,
    netns_state: NetnsState,
    outcome: Outcome,
}

/// What an attempt came to.
pub(super) struct Outcome {
    shortcomings: BTreeSet<Shortcoming>,
    wants_rules: bool,
    /// Whether its namespace may have been read.
    was_unknown: bool,
    began: Instant,
    took: Duration,
    /// See [`NetnsState::is_disturbed`].
    is_disturbed: bool,
    pub(super) result: Result<Applied, Error>,
}

impl Pods {
    pub(super) fn new(mut context: Context) -> Self {
        let stuck_pods = context.stuck_pods.take().expect("a context is used once");
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
            stuck_pods,
            parents: Parents::default(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Another proxy writes: starts nothing until [`Self::resume`].
    pub(super) fn pause(&mut self) {
        self.context.sandbox_locks.share();
        self.held_back.get_or_insert_default();
    }

    /// Starts what was held back.
    pub(super) fn resume(&mut self, index: &Index) {
        for uid in self.held_back.take().into_iter().flatten() {
            self.start(&uid, index);
        }
    }

    /// Pods that were there before us: looked at even if they need nothing, for an earlier proxy may have left something.
    pub(super) fn adopt(&mut self, uids: &BTreeSet<String>) {
        self.untried.clone_from(uids);
    }

    /// Whether each pod of the first list has been tried once.
    pub(super) fn tried_all(&self) -> bool {
        self.untried.is_empty()
    }

    /// Waits until an attempt ends or one is due, and acts on it.
    pub(super) async fn progress(&mut self, index: &mut Index) {
        let rules_are_written = self.jobs.len() > self.cleanups.running();
        tokio::select! {
            Some(finished) = self.jobs.join_next() => match finished {
                Ok(Done::Wrote(finished)) => self.finish(finished, index),
                Ok(Done::Cleaned(cleaned)) => self.cleaned(cleaned, index),
                Err(error) => warn!(%error, "An attempt ended without a result"),
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
            Some(uid) = self.stuck_pods.recv() => self.stuck(&uid, index),
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

    /// Starts an attempt for a pod, now; or after the one under way.
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
        let is_told = pod.check_at.take().is_some() | pod.routes_dirty_since.take().is_some();
        if pod.are_rules_dirty {
            netns_state.held = KnownRules::Unknown;
        }
        // However often endpoints change meanwhile.
        let resync_in = if self.has_monitor && netns_state.nsid.is_some() {
            MONITORED_RESYNC
        } else {
            RESYNC
        };
        if is_told
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
            let told = pod_events::nothing_written(local, &shortcomings);
            if !pod.publish(told, local, &self.context.reporters.event_sender) {
                pod.due = Some(self.due.insert(local.uid.clone(), event_throttle::PAUSE));
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
            // A pod whose attempt panicked is tried again like any other; nothing is known about it then.
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

    /// The work in its namespace does not end: it counts as tried, for nobody knows when it will.
    fn stuck(&mut self, uid: &str, index: &Index) {
        self.untried.remove(uid);
        let pod = self.by_uid.get_mut(uid).filter(|pod| pod.netns_state.is_none());
        if let (Some(pod), Some(local)) = (pod, index.pod(uid)) {
            pod.publish(pod_events::stuck(), local, &self.context.reporters.event_sender);
        }
        self.has_changed = true;
    }

    /// The namespace of a pod that is gone goes by itself.
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
        self.count();
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
            // Ids are reused: the latest claim is the right one.
            let before = self.by_nsid.insert(id, local.uid.clone());
            if before.as_ref() != Some(&local.uid) {
                // What the kernel reported of this namespace until now was dropped: what was read of it may have changed.
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
            // Changes may follow each other without an end: the next attempt comes after it.
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
        self.count();
    }

    /// Whether something changed while it was at work.
    fn takes_another_attempt(&mut self, uid: &str) -> bool {
        let pod = self.by_uid.get_mut(uid);
        pod.is_some_and(|pod| std::mem::take(&mut pod.needs_rerun))
    }

    /// A pod has its rules, and its flows are where they may be, or not: says so, and when to come back.
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
        // Whoever makes us wait in his namespace waits longer himself.
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
        let notice = pod_events::of_attempt(
            local,
            &shortcomings,
            result.as_ref().map_err(|error| chain(error)),
            pod.is_failing() || is_final && wants_rules,
        );
        let is_told = pod.publish(notice, local, &self.context.reporters.event_sender);
        let next = if is_told {
            next
        } else {
            Some(next.unwrap_or(event_throttle::PAUSE))
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
        self.count();
    }

    /// Starts an attempt after this time, unless one comes sooner.
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

    /// Whether rules may be written there may be different now.
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

    fn count(&mut self) {
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

    /// Whether it fails for longer than a pod takes to start.
    pub(super) fn is_failing(&self) -> bool {
        let lasting = self.failing_since.map(|since| since.elapsed());
        backoff::is_reportable(self.failures, lasting.unwrap_or_default())
    }

    /// Once more after the attempt under way, routes included.
    pub(super) fn check_after_attempt(&mut self) {
        self.needs_rerun = true;
        self.routes_dirty_since = Some(Instant::now());
    }

    /// Says it unless it was the last thing said; returns whether all is said.
    fn publish(&mut self, notice: Option<PodEvent>, local: &LocalPod, event_sender: &EventSender) -> bool {
        let send = |notice: &PodEvent| event_sender.send(local, notice.clone());
        self.event_throttle.publish(notice, Instant::now(), send);
        self.event_throttle.is_published()
    }

    /// When to come back, if at all.
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
            // Nothing is wanted of a namespace that is not there, or not known to be the pod's before it has an address.
            Err(error) if error.is_absence() && !wants_rules => None,
            Err(error) if error.is_unidentified() && !wants_rules && local.addresses.is_empty() => None,
            // A new sandbox, or another thing that is wanted, is an event.
            Err(error) if error.is_final() => None,
            Err(error) => {
                let next = self.fail(error.is_netns_fault());
                debug!(pod = %local.name, failures = self.failures, "Trying again");
                Some(next)
            }
        }
    }

    /// One more failure; says when to try again. Without its namespace the pod is starting again.
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
        debug!(pod = %pod.name, "Rules are as wanted");
    }
}

fn log(pod: &LocalPod, failures: u32, result: &Result<Applied, Error>) {
    match result {
        Ok(Applied {
            conntrack: Some(why), ..
        }) => warn!(pod = %pod.name, failures, why, "Could not end flows to endpoints that are gone"),
        Ok(applied) if !applied.failures.is_empty() => {
            if failures == 1 || failures.is_multiple_of(50) {
                let why = applied.failures.iter().map(ToString::to_string);
                let why = why.collect::<Vec<_>>().join("; ");
                warn!(pod = %pod.name, failures, why, "Synced rules, but not all");
            }
        }
        Ok(_) => {}
        Err(error) if failures == 1 && !error.is_absence() || failures.is_multiple_of(50) => {
            warn!(pod = %pod.name, failures, error = error as &dyn std::error::Error, "Could not sync rules");
        }
        Err(error) => debug!(pod = %pod.name, failures, %error, "Could not sync rules"),
    }
}

#[cfg(test)]
mod tests;
