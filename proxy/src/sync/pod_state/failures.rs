//! Consecutive failures of a pod.
//!
//! Pure.

use crate::metrics::Cause;
use crate::netns::apply::Applied;
use crate::report::pod_events;
use crate::sync::attempt::Error;
use crate::sync::backoff;
use process::error_chain;
use std::time::Instant;

/// Failures since the last complete attempt, and the texts of the last one.
#[derive(Debug, Default)]
pub(in crate::sync) struct Failures {
    streak: Option<Streak>,
    /// Error of the last attempt.
    error: Option<String>,
    /// Error of the container runtime in the last attempt.
    runtime_error: Option<String>,
    /// Cause of the failure of the last attempt.
    cause: Option<Cause>,
}

#[derive(Debug)]
struct Streak {
    count: u32,
    /// Start of the first of these attempts.
    since: Instant,
}

impl Failures {
    /// Returns the number of failures since the last complete attempt.
    pub(in crate::sync) fn count(&self) -> u32 {
        self.streak.as_ref().map_or(0, |streak| streak.count)
    }

    /// Returns true when the pod has failed for longer than a pod takes to start.
    pub(in crate::sync) fn are_lasting(&self) -> bool {
        let streak = self.streak.as_ref();
        streak.is_some_and(|streak| backoff::is_reportable(streak.count, streak.since.elapsed()))
    }

    /// Returns the error of the last attempt.
    pub(in crate::sync) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the error of the container runtime in the last attempt.
    pub(in crate::sync) fn runtime_error(&self) -> Option<&str> {
        self.runtime_error.as_deref()
    }

    /// Returns the cause, if the pod has failed for longer than a pod takes to start.
    pub(in crate::sync) fn lasting_cause(&self) -> Option<Cause> {
        self.are_lasting().then(|| self.cause.unwrap_or(Cause::Other))
    }

    /// Records cause and texts of a result, whether it counts as a failure or not.
    pub(super) fn describe(&mut self, result: &Result<Applied, Error>) {
        self.error = match result {
            Ok(applied) => pod_events::incomplete(applied),
            Err(error) => Some(error_chain(error)),
        };
        self.cause = match result {
            Ok(applied) => cause_of(applied),
            Err(error) => Some(error.cause()),
        };
        self.runtime_error = result.as_ref().err().and_then(Error::runtime_error);
    }

    /// Counts a failure of an attempt that began at `began`; returns the number of failures.
    pub(super) fn add(&mut self, began: Instant) -> u32 {
        let streak = self.streak.get_or_insert(Streak {
            count: 0,
            since: began,
        });
        streak.count = streak.count.saturating_add(1);
        streak.count
    }

    /// An attempt was complete, or none is needed any more.
    pub(super) fn end(&mut self) {
        self.streak = None;
    }

    /// The pod wants no rules and has none.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Returns the cause for which an attempt is not complete.
fn cause_of(applied: &Applied) -> Option<Cause> {
    if !applied.failures.is_empty() {
        Some(Cause::Partial)
    } else if !applied.absent.is_empty() {
        Some(Cause::Addresses)
    } else if applied.conntrack.is_some() {
        Some(Cause::Conntrack)
    } else {
        None
    }
}
