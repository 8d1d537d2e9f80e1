//! Flows of a pod that are still to be deleted.
//!
//! Pure. The changes of a pod are collected until its cleanup, which uses the rules that the pod has by then.

use crate::netns::apply::Pending;
use crate::sync::flow_cleanup::QueueEntry;
use crate::sync::outcome::Outcome;
use std::time::Instant;

/// Pending cleanup of one pod, and the time of the last one.
#[derive(Default)]
pub(super) struct Flows {
    deferred: Option<Deferred>,
    /// End of the last cleanup.
    cleaned: Option<Instant>,
}

/// Deferred cleanup of a pod, and the result of the attempt, which is reported afterwards.
struct Deferred {
    pending: Pending,
    /// Sandbox of the flows.
    sandbox: Option<String>,
    /// Time of the oldest pending change.
    since: Instant,
    /// Result of the last attempt. `None`: it failed, so the rules of the namespace are unknown.
    outcome: Option<Outcome>,
}

impl Flows {
    /// Defers the cleanup after an attempt that wrote rules. Returns the outcome if there is nothing to clean up.
    pub(super) fn defer(
        &mut self,
        mut outcome: Outcome,
        sandbox: Option<&str>,
        now: Instant,
    ) -> Option<Outcome> {
        let before = self
            .deferred
            .take()
            .filter(|deferred| deferred.sandbox.as_deref() == sandbox);
        let Ok(applied) = &mut outcome.result else {
            self.deferred = before.map(|before| Deferred {
                outcome: None,
                ..before
            });
            return Some(outcome);
        };
        let (mut pending, since) = before.map_or_else(
            || (Pending::default(), now),
            |before| (before.pending, before.since),
        );
        pending.add(std::mem::take(&mut applied.pending), &applied.rules);
        let is_due = pending.is_due();
        let (outcome, handed_back) = if is_due {
            (Some(outcome), None)
        } else {
            (None, Some(outcome))
        };
        self.deferred = (!pending.is_empty()).then(|| Deferred {
            pending,
            sandbox: sandbox.map(str::to_owned),
            since,
            outcome,
        });
        handed_back
    }

    /// Returns the entry in the queue of cleanups, if the rules of the namespace are known.
    pub(super) fn queue_entry(&self) -> Option<QueueEntry> {
        let deferred = self.deferred.as_ref()?;
        deferred.outcome.as_ref()?;
        Some(QueueEntry {
            since: deferred.since,
            last: self.cleaned,
        })
    }

    /// Takes the flows to delete, and the attempt to conclude afterwards.
    pub(super) fn take(&mut self) -> Option<(Pending, Outcome)> {
        let deferred = self.deferred.as_mut()?;
        let outcome = deferred.outcome.take()?;
        Some((deferred.pending.clone(), outcome))
    }

    /// Records the end of a cleanup. Flows that were not deleted stay pending.
    pub(super) fn cleaned(&mut self, is_clean: bool, now: Instant) {
        self.cleaned = Some(now);
        if let Some(deferred) = self.deferred.as_mut().filter(|_| is_clean) {
            deferred.pending.done();
        }
        self.deferred.take_if(|deferred| deferred.pending.is_empty());
    }
}
