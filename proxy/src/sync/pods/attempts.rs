//! Attempts: when they start, and what follows them.
//!
//! Writes: through `attempt`, in a task per attempt.

use super::{Done, MONITORED_RESYNC, Pod, Pods, RESYNC};
use crate::backend::KnownRules;
use crate::index::{Index, LocalPod};
use crate::report::pod_events;
use crate::sync::attempt::{Error, attempt};
use crate::sync::netns_state::NetnsState;
use crate::sync::outcome::Outcome;
use crate::sync::programming::{Batches, written};
use futures::FutureExt;
use process::events;
use rules::{PodRules, Shortcoming};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Finished attempt. Flows may still have to be deleted.
pub(super) struct Finished {
    pod: LocalPod,
    netns_state: NetnsState,
    outcome: Outcome,
    /// Changes of slices that it was to write.
    batches: Batches,
}

impl Pods {
    /// Starts an attempt for a pod, after the running one if there is one.
    pub(in crate::sync) fn start(&mut self, uid: &str, index: &Index) {
        if self.hold_back(uid) {
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
        let Some(mut netns_state) = pod.start(local, &mut self.timers) else {
            return;
        };
        // Routes are checked at this interval no matter how often endpoints change.
        let resync_in = if self.has_monitor && netns_state.nsid.is_some() {
            MONITORED_RESYNC
        } else {
            RESYNC
        };
        netns_state.forget_routes_after(resync_in);
        let batches = self.programming.take(uid);
        let (rules, shortcomings) = self.plan(local, index);
        if rules.is_empty() && netns_state.is_untouched() && !self.untried.contains(uid) {
            return self.skip(local, netns_state, &shortcomings);
        }
        self.cleanups.unqueue(uid);
        self.spawn(local.clone(), netns_state, (rules, shortcomings), batches);
    }

    /// Returns the wanted rules of a pod. On the node, networks whose pods it cannot reach are left out.
    fn plan(&self, local: &LocalPod, index: &Index) -> (PodRules, BTreeSet<Shortcoming>) {
        let (rules, mut shortcomings) = index.plan(local);
        if !local.is_host {
            return (rules, shortcomings);
        }
        let (allowed, rejected) = self.parents.allowed(self.shared.backend.as_ref(), rules, local);
        shortcomings.extend(rejected);
        (allowed, shortcomings)
    }

    /// Ends an attempt at once: there is nothing to write into the namespace, and never was.
    fn skip(&mut self, local: &LocalPod, netns_state: NetnsState, shortcomings: &BTreeSet<Shortcoming>) {
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        self.queue.leave(&local.uid);
        // Failures of an attempt that wanted rules would count as lasting otherwise.
        pod.wants_nothing();
        let event = pod_events::nothing_written(local, shortcomings);
        let is_published = pod.publish(event, local, &self.shared.reporters.event_sender);
        let retry_in = (!is_published).then_some(events::PAUSE);
        // Nothing happened since the start.
        let _ = pod.end(netns_state, &local.uid, retry_in, &mut self.timers);
    }

    fn spawn(
        &mut self,
        local: LocalPod,
        mut netns_state: NetnsState,
        (rules, shortcomings): (PodRules, BTreeSet<Shortcoming>),
        batches: Batches,
    ) {
        let shared = Arc::clone(&self.shared);
        self.jobs.spawn(async move {
            let was_unknown = !matches!(netns_state.held, KnownRules::Exactly(_));
            let (wants_rules, began) = (!rules.is_empty(), Instant::now());
            // An attempt that panicked is retried like any other; the state of the namespace is unknown.
            let attempt = AssertUnwindSafe(attempt(&shared, &local, rules, &mut netns_state)).catch_unwind();
            let result = attempt.await.unwrap_or(Err(Error::Lost));
            let outcome = Outcome {
                shortcomings,
                wants_rules,
                was_unknown,
                began,
                took: netns_state.took,
                is_disturbed: netns_state.is_disturbed,
                result,
            };
            Done::Wrote(Finished {
                pod: local,
                netns_state,
                outcome,
                batches,
            })
        });
    }

    /// Handles the end of an attempt.
    pub(super) fn finish(&mut self, finished: Finished, index: &mut Index) {
        let Finished {
            pod: local,
            mut netns_state,
            outcome,
            batches,
        } = finished;
        self.untried.remove(&local.uid);
        if self.owner(&local.uid, &netns_state).is_none() {
            return;
        }
        self.note_namespace(&local.uid, &mut netns_state);
        if let (KnownRules::Exactly(held), true) = (&mut netns_state.held, outcome.was_unknown) {
            index.adopt(held);
        }
        let shown = outcome.result.as_ref().map(|applied| &applied.parents);
        let has_new_parents = shown.is_ok_and(|shown| self.parents.note(&local.uid, shown));
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        if pod.attempted(&netns_state, &outcome) {
            self.shared.reporters.metrics.repaired();
        }
        outcome.log_rules(&local);
        if outcome.is_programmed() {
            written(batches, outcome.has_written());
        } else if !pod.failures().are_lasting() {
            self.programming.put_back(&local.uid, batches);
        }
        match pod.defer_cleanup(&netns_state, outcome) {
            Some(outcome) => self.conclude(&local, netns_state, &outcome, index),
            None => self.await_cleanup(&local.uid, netns_state, index),
        }
        if has_new_parents {
            self.check_host();
        }
    }

    /// Records the owner of a namespace id. Ids are reused: the latest owner is the right one.
    fn note_namespace(&mut self, uid: &str, netns_state: &mut NetnsState) {
        let Some(id) = netns_state.nsid else {
            return;
        };
        let before = self.by_nsid.insert(id, uid.to_owned());
        if before.as_deref() != Some(uid) {
            // Notifications about this namespace were dropped until now: what was read of it may have changed.
            netns_state.forget_routes();
        }
    }

    /// Ends an attempt whose flows are still to be deleted: queues the cleanup, unless the pod changed meanwhile.
    fn await_cleanup(&mut self, uid: &str, netns_state: NetnsState, index: &Index) {
        let is_overdue = self.has_overdue_cleanup(uid);
        let pod = self.by_uid.get_mut(uid);
        let needs_rerun = pod.is_some_and(|pod| pod.end(netns_state, uid, None, &mut self.timers));
        if is_overdue {
            // Changes may follow each other without end: the next attempt starts after the cleanup.
            self.start_cleanup(uid, index);
        } else if !needs_rerun {
            self.queue_cleanup(uid);
        }
        if needs_rerun {
            self.start(uid, index);
        } else {
            self.queue.leave(uid);
        }
        self.ended();
    }

    /// Reports the result of an attempt and its cleanup, and schedules the next attempt.
    pub(super) fn conclude(
        &mut self,
        local: &LocalPod,
        netns_state: NetnsState,
        outcome: &Outcome,
        index: &Index,
    ) {
        let resync_in = self.resync_interval(local);
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        let next = pod.conclude(local, netns_state.sandbox_id(), outcome, resync_in);
        outcome.log_failure(local, pod.failures().count());
        let reporters = &self.shared.reporters;
        if outcome.has_failed() {
            reporters.metrics.failed();
        }
        let event = outcome.event(local, pod.failures().are_lasting());
        let is_published = pod.publish(event, local, &reporters.event_sender);
        let next = next.or_else(|| (!is_published).then_some(events::PAUSE));
        let next = next.map(|next| pod.check_before(next, outcome));
        let is_queued = pod.retries_soon(outcome);
        if pod.end(netns_state, &local.uid, next, &mut self.timers) {
            self.start(&local.uid, index);
        } else if !is_queued {
            self.queue.leave(&local.uid);
        }
        self.ended();
    }

    /// Returns the interval at which a pod that has rules is checked.
    fn resync_interval(&self, local: &LocalPod) -> Duration {
        if self.has_monitor && !local.is_host && self.shared.backend.reports_ruleset_changes() {
            MONITORED_RESYNC
        } else {
            RESYNC
        }
    }
}
