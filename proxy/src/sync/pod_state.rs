//! State of one pod: its phase, its failures, and what its namespace has.
//!
//! Pure, but for the clock of the timers.

mod evaluation;
mod failures;
mod flows;
mod phase;
mod repair;

use super::flow_cleanup::QueueEntry;
use super::netns_state::NetnsState;
use super::outcome::Outcome;
use super::repair::Target;
use super::timers::Timers;
use crate::backend::KnownRules;
use crate::index::LocalPod;
use crate::netns::apply::Pending;
use crate::report::pod_events::{EventSender, PodEvent};
use failures::Failures;
use flows::Flows;
use phase::Phase;
use process::events::EventThrottle;
use repair::RulesetWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Delay between a change by another process and the check of the pod: changes come in bursts.
pub(super) const SETTLE: Duration = Duration::from_millis(300);

/// State of one pod.
pub(super) struct Pod {
    name: String,
    phase: Phase,
    failures: Failures,
    has_rules: bool,
    /// [`LocalPod::sandbox_mark`] of the last attempt.
    sandbox_mark: String,
    /// Sandbox in which the rules were complete.
    synced_sandbox: Option<String>,
    /// Changes of the rules by other processes.
    ruleset: RulesetWatch,
    flows: Flows,
    events: EventThrottle<PodEvent>,
    /// Set when the pod is deleted, for the work that runs.
    is_abandoned: Arc<AtomicBool>,
}

/// Phase.
impl Pod {
    pub(super) fn new(name: String) -> Self {
        let netns_state = NetnsState::default();
        Self {
            name,
            is_abandoned: Arc::clone(&netns_state.is_abandoned),
            phase: Phase::Resting {
                netns_state,
                timer: None,
            },
            failures: Failures::default(),
            has_rules: false,
            sandbox_mark: String::new(),
            synced_sandbox: None,
            ruleset: RulesetWatch::default(),
            flows: Flows::default(),
            events: EventThrottle::default(),
        }
    }

    /// Begins an attempt. `None`: other work runs; an attempt follows it.
    pub(super) fn start(&mut self, local: &LocalPod, timers: &mut Timers) -> Option<NetnsState> {
        let mut netns_state = self.phase.start(timers)?;
        if self.ruleset.is_dirty() {
            netns_state.held = KnownRules::Unknown;
        }
        if self.sandbox_mark != local.sandbox_mark {
            self.sandbox_mark.clone_from(&local.sandbox_mark);
            netns_state.sandbox = None;
        }
        Some(netns_state)
    }

    /// Begins a cleanup; returns the flows and the attempt to conclude. `None`: other work runs, or there is nothing to delete.
    pub(super) fn clean(&mut self) -> Option<(NetnsState, Pending, Outcome)> {
        self.phase.netns_state()?;
        let (pending, outcome) = self.flows.take()?;
        Some((self.phase.clean()?, pending, outcome))
    }

    /// Ends the work with an attempt after `retry_in`, if set. Returns true when the pod changed meanwhile: the caller starts an attempt
    /// now, instead.
    #[must_use]
    pub(super) fn end(
        &mut self,
        netns_state: NetnsState,
        uid: &str,
        retry_in: Option<Duration>,
        timers: &mut Timers,
    ) -> bool {
        self.phase.end(netns_state, uid, retry_in, timers)
    }

    /// Schedules a check, routes included, after `wait`, or after the work that runs.
    pub(super) fn check(&mut self, uid: &str, wait: Duration, timers: &mut Timers) {
        self.phase.check(uid, wait, timers);
    }

    /// Another process may have changed routes or links: schedules a check, if there are rules to repair. Otherwise the next attempt
    /// reads addresses and routes again.
    pub(super) fn routes_changed(&mut self, uid: &str, timers: &mut Timers) {
        if self.has_rules {
            self.check(uid, SETTLE, timers);
        } else {
            self.phase.forget_routes();
        }
    }

    /// Another process changed the rules since generation `known`: schedules a check, unless work runs or ended since: its result is newer.
    pub(super) fn rules_changed(&mut self, uid: &str, known: u32, timers: &mut Timers) {
        let generation = self.netns_state().and_then(NetnsState::generation);
        if self.has_rules && generation.is_some_and(|(_, generation)| generation == known) {
            self.ruleset.changed();
            self.check(uid, self.ruleset.wait(), timers);
        }
    }

    /// Schedules a check: notifications were lost.
    pub(super) fn invalidate(&mut self, uid: &str, timers: &mut Timers) {
        self.phase.invalidate(timers);
        self.routes_changed(uid, timers);
    }

    /// The timer fired: the caller starts an attempt now.
    pub(super) fn fired(&mut self) {
        self.phase.fired();
    }

    /// The pod is deleted: ends its timer, and its work as soon as possible.
    pub(super) fn abandon(self, timers: &mut Timers) {
        self.is_abandoned.store(true, Ordering::Release);
        self.phase.cancel(timers);
    }

    /// Returns true when `netns_state` is of this pod: one that is deleted and recreated under the same UID is another.
    pub(super) fn owns(&self, netns_state: &NetnsState) -> bool {
        Arc::ptr_eq(&self.is_abandoned, &netns_state.is_abandoned)
    }

    /// Returns the state of the namespace. `None`: work runs.
    pub(super) fn netns_state(&self) -> Option<&NetnsState> {
        self.phase.netns_state()
    }
}

/// Results.
impl Pod {
    /// Defers the cleanup of flows after an attempt. Returns the outcome if there is nothing to clean up.
    pub(super) fn defer_cleanup(&mut self, netns_state: &NetnsState, outcome: Outcome) -> Option<Outcome> {
        self.flows
            .defer(outcome, netns_state.sandbox_id(), Instant::now())
    }

    /// Records the end of a cleanup.
    pub(super) fn cleaned(&mut self, outcome: &Outcome) {
        let applied = outcome.result.as_ref().ok();
        let is_clean = applied.is_some_and(|applied| applied.conntrack.is_none());
        self.flows.cleaned(is_clean, Instant::now());
    }

    /// Publishes an Event unless it is unchanged; returns false when the Event has to be retried.
    pub(super) fn publish(
        &mut self,
        event: Option<PodEvent>,
        local: &LocalPod,
        sender: &EventSender,
    ) -> bool {
        let send = |notice: &PodEvent| sender.send(local, notice.clone());
        self.events.publish(event, Instant::now(), send);
        self.events.is_published()
    }
}

/// Status.
impl Pod {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// The pod wants no rules, and nothing was written: its earlier failures do not matter any more.
    pub(super) fn wants_nothing(&mut self) {
        self.failures.forget();
    }

    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Returns the entry of the pod in the queue of cleanups, if flows are to be deleted and the rules are known.
    pub(super) fn cleanup_entry(&self) -> Option<QueueEntry> {
        self.flows.queue_entry()
    }

    /// Returns the namespace whose rules have to be polled. `None`: it has no rules, work runs, or it is being polled.
    pub(super) fn poll_target(&self, uid: &str) -> Option<Target> {
        let netns_state = self.netns_state().filter(|_| self.has_rules)?;
        let (netns, known) = netns_state.generation()?;
        Some(Target {
            polling: self.ruleset.poll()?,
            uid: uid.to_owned(),
            netns,
            known,
        })
    }

    /// Returns the Event that applies now, sent or not.
    pub(super) fn event(&self) -> Option<&PodEvent> {
        self.events.current()
    }
}

#[cfg(test)]
mod tests;
