//! Result of an attempt, and of the cleanup of flows that concludes it.
//!
//! Pure, but for its log lines.

use super::attempt::Error;
use super::backoff;
use crate::index::LocalPod;
use crate::netns::apply::Applied;
use crate::report::pod_events::{self, PodEvent};
use process::error_chain;
use rules::Shortcoming;
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// Failures in a row between two warnings about one pod.
const WARN_EVERY: u32 = 50;

/// Result of an attempt.
pub(super) struct Outcome {
    pub(super) shortcomings: BTreeSet<Shortcoming>,
    pub(super) wants_rules: bool,
    /// The rules of the namespace were not known before.
    pub(super) was_unknown: bool,
    pub(super) began: Instant,
    /// Duration of the work in the namespace, without the waits for a worker, a lock or memory.
    pub(super) took: Duration,
    /// See [`NetnsState::is_disturbed`](super::netns_state::NetnsState::is_disturbed).
    pub(super) is_disturbed: bool,
    pub(super) result: Result<Applied, Error>,
}

impl Outcome {
    /// Returns true when the attempt counts as failed in the metrics.
    pub(super) fn has_failed(&self) -> bool {
        match &self.result {
            Ok(applied) => applied.conntrack.is_some() || !applied.failures.is_empty(),
            Err(error) => !error.is_final(),
        }
    }

    /// Returns true when the rules are applied, or never will be in this sandbox.
    pub(super) fn is_programmed(&self) -> bool {
        match &self.result {
            Ok(applied) => applied.failures.is_empty(),
            Err(error) => error.is_final(),
        }
    }

    /// Returns true when the attempt wrote rules or routes.
    pub(super) fn has_written(&self) -> bool {
        self.result.as_ref().is_ok_and(|applied| applied.written)
    }

    /// Returns true when content of another process was replaced unread.
    pub(super) fn is_rebuilt(&self) -> bool {
        self.result
            .as_ref()
            .is_ok_and(|applied| !applied.unread.is_empty())
    }

    /// Returns `delay`, or more after a fault in the namespace: one whose owner delays us is retried later.
    pub(super) fn delayed(&self, delay: Duration) -> Duration {
        let is_slow = match &self.result {
            Ok(applied) => !applied.failures.is_empty(),
            Err(error) => error.is_netns_fault(),
        };
        if is_slow {
            backoff::after_slow_attempt(delay, self.took)
        } else {
            delay
        }
    }

    /// Returns the Event on the pod. `is_lasting`: the failure outlasts the startup of a pod.
    pub(super) fn event(&self, pod: &LocalPod, is_lasting: bool) -> Option<PodEvent> {
        let is_final = self.result.as_ref().is_err_and(Error::is_final);
        let result = self.result.as_ref().map_err(|error| error_chain(error));
        let is_lasting = is_lasting || is_final && self.wants_rules;
        pod_events::of_attempt(pod, &self.shortcomings, result, is_lasting)
    }

    /// Logs the rules that were written.
    pub(super) fn log_rules(&self, pod: &LocalPod) {
        let applied = self.result.as_ref().ok();
        let Some(applied) = applied.filter(|applied| applied.failures.is_empty()) else {
            return;
        };
        if applied.written {
            info!(pod = %pod.name, vips = applied.rules.vip_count(), "Synced rules");
        } else {
            debug!(pod = %pod.name, "Rules are up to date");
        }
    }

    /// Logs what failed. `failures`: failures in a row, this one included.
    pub(super) fn log_failure(&self, pod: &LocalPod, failures: u32) {
        match &self.result {
            Ok(Applied {
                conntrack: Some(why), ..
            }) => {
                warn!(pod = %pod.name, failures, why, "Failed to delete conntrack entries for removed endpoints");
            }
            Ok(applied) if !applied.failures.is_empty() => {
                if failures == 1 || failures.is_multiple_of(WARN_EVERY) {
                    let why = applied.failures.iter().map(ToString::to_string);
                    let why = why.collect::<Vec<_>>().join("; ");
                    warn!(pod = %pod.name, failures, why, "Synced rules partially");
                }
            }
            Ok(_) => {}
            Err(error)
                if failures == 1 && !error.is_absence()
                    || failures > 0 && failures.is_multiple_of(WARN_EVERY) =>
            {
                warn!(pod = %pod.name, failures, error = error as &dyn StdError, "Failed to sync rules");
            }
            Err(error) => {
                debug!(pod = %pod.name, failures, error = %error_chain(error), "Failed to sync rules");
            }
        }
    }
}
