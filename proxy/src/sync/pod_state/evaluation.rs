//! Evaluates the result of an attempt: what the pod has, whether it failed, and when the next attempt is due.
//!
//! Pure, but for the clock.

use super::Pod;
use crate::index::LocalPod;
use crate::sync::backoff;
use crate::sync::netns_state::NetnsState;
use crate::sync::outcome::Outcome;
use std::time::{Duration, Instant};
use tracing::debug;

/// Delay until a pod whose rules were rebuilt unread is checked again: if the rules are intact, the Event ends.
const REBUILT: Duration = Duration::from_secs(5);

impl Pod {
    /// Records the end of an attempt. Flows may still have to be deleted. Returns true when it repaired rules that another process had
    /// changed.
    pub(in crate::sync) fn attempted(&mut self, netns_state: &NetnsState, outcome: &Outcome) -> bool {
        let sandbox = netns_state.sandbox_id();
        self.synced_sandbox
            .take_if(|synced| sandbox != Some(synced.as_str()));
        let is_repaired = outcome.result.is_ok() && netns_state.is_repaired
            || self.ruleset.is_dirty() && outcome.has_written();
        self.ruleset
            .attempted(outcome.is_disturbed, outcome.has_written(), netns_state.took);
        if let Ok(applied) = &outcome.result {
            self.has_rules = !applied.rules.is_empty();
        }
        is_repaired
    }

    /// Records the result of an attempt and its cleanup; returns the delay of the next attempt, if there is one.
    pub(in crate::sync) fn conclude(
        &mut self,
        local: &LocalPod,
        sandbox: Option<&str>,
        outcome: &Outcome,
        resync_in: Duration,
    ) -> Option<Duration> {
        self.failures.describe(&outcome.result);
        let next = self.evaluate(local, outcome, resync_in);
        if self.failures.count() == 0 && self.has_rules && self.synced_sandbox.as_deref() != sandbox {
            self.synced_sandbox = sandbox.map(str::to_owned);
        }
        next.map(|next| outcome.delayed(next))
    }

    /// Evaluates the result of an attempt; returns the delay of the next attempt, if there is one.
    pub(super) fn evaluate(
        &mut self,
        local: &LocalPod,
        outcome: &Outcome,
        resync_in: Duration,
    ) -> Option<Duration> {
        let wants_rules = outcome.wants_rules;
        match &outcome.result {
            Ok(applied) => {
                self.has_rules = !applied.rules.is_empty();
                if applied.is_complete() {
                    self.failures.end();
                    return self.has_rules.then_some(resync_in);
                }
                Some(self.fail(outcome.began, true))
            }
            // Without wanted rules, a namespace that does not exist or cannot be identified yet is no failure.
            Err(error) if error.is_absence() && !wants_rules => {
                self.has_rules = false;
                self.failures.end();
                None
            }
            Err(error) if error.is_unidentified() && !wants_rules && local.addresses.is_empty() => {
                self.failures.end();
                None
            }
            // Only a new sandbox or a change of the rules starts another attempt.
            Err(error) if error.is_final() => {
                self.failures.end();
                None
            }
            Err(error) => {
                let next = self.fail(outcome.began, error.is_netns_fault());
                debug!(pod = %local.name, failures = self.failures.count(), "Scheduled a retry");
                Some(next)
            }
        }
    }

    /// Returns true when the attempt applied nothing and the next one is expected to: the pod is starting, and not counted as failing.
    pub(in crate::sync) fn retries_soon(&self, outcome: &Outcome) -> bool {
        outcome.result.is_err() && self.failures.count() > 0 && !self.failures.are_lasting()
    }

    /// Counts a failure; returns the delay of the retry. A pod without its namespace counts as starting.
    fn fail(&mut self, began: Instant, is_netns_fault: bool) -> Duration {
        let failures = self.failures.add(began);
        if is_netns_fault && self.synced_sandbox.is_some() {
            backoff::repair_delay(failures)
        } else {
            backoff::startup_delay(failures)
        }
    }

    /// Returns `next`, or less if the rules have to be checked before.
    pub(in crate::sync) fn check_before(&self, next: Duration, outcome: &Outcome) -> Duration {
        let soon = outcome.delayed(self.ruleset.wait());
        let next = if outcome.is_disturbed {
            next.min(soon)
        } else {
            next
        };
        if outcome.is_rebuilt() {
            next.min(REBUILT)
        } else {
            next
        }
    }
}
