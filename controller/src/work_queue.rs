//! Work queue: the time at which a changed Service is due.
//!
//! Pure: the clock is an argument. A change is due at once while the Service has tokens ([`token_bucket`]); without, changes are collected
//! until the next token, at most 250 ms. A failure is retried with a growing delay, for ever. Services that were never reconciled go first.

mod token_bucket;

use api::ObjectName;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use token_bucket::{REFILL, TokenBucket};
use tokio::time::Instant;

/// The longest delay between two attempts.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was nothing to write.
    Unchanged,
    /// Something was written.
    Wrote,
    /// It must be retried, after the API server's delay if it named one.
    Failed {
        /// `Retry-After` of a throttled request.
        retry_after: Option<Duration>,
    },
}

/// Services that wait for a reconciliation.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    entries: HashMap<ObjectName, Entry>,
    /// Never reconciled, by the time they are due.
    fresh: BTreeMap<(Instant, u64), ObjectName>,
    /// Reconciled before, by the time they are due.
    again: BTreeMap<(Instant, u64), ObjectName>,
    /// Deleted Services, and the times at which their buckets are full: at most as many as can be written in a second.
    expiring: VecDeque<(Instant, ObjectName)>,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<(Instant, u64)>,
    not_before: Option<Instant>,
    is_running: bool,
    is_dirty: bool,
    is_known: bool,
    /// Time at which a deleted Service is dropped.
    expires_at: Option<Instant>,
    failures: u32,
    bucket: TokenBucket,
}

impl Entry {
    /// Earliest time of its next attempt.
    fn allowed_at(&self, now: Instant) -> Instant {
        let token = self.bucket.next_token(now);
        self.not_before.map_or(token, |not_before| not_before.max(token))
    }

    /// Records the result of an attempt; returns the time of a retry.
    fn end(&mut self, outcome: Outcome, now: Instant, jitter: f64) -> Option<Instant> {
        if outcome != Outcome::Unchanged {
            self.bucket.take(now);
        }
        let Outcome::Failed { retry_after } = outcome else {
            self.failures = 0;
            return None;
        };
        let asked = retry_after.unwrap_or_default();
        // Always spread: many requests are rejected at one moment with one answer, and must not be retried at the same time.
        let delay = backoff(self.failures)
            .max(asked)
            .mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + REFILL.max(asked));
        Some((now + delay).max(self.bucket.next_token(now)))
    }

    fn waits(&self) -> bool {
        self.due.is_some() || self.is_running
    }

    /// Drops state that no longer has an effect.
    fn compact(&mut self, now: Instant) {
        self.not_before = self.not_before.filter(|not_before| *not_before > now);
        if self.bucket.full_at(now).is_none() {
            self.bucket = TokenBucket::default();
        }
    }
}

impl WorkQueue {
    /// Enqueues a Service whose served content changed.
    pub(crate) fn enqueue(&mut self, key: ObjectName, now: Instant) {
        self.entries.entry(key.clone()).or_default().bucket.change(now);
        self.recheck(key, now);
    }

    /// Enqueues a Service whose served content has not changed: the echo of a write, a slice that another client wrote.
    pub(crate) fn recheck(&mut self, key: ObjectName, now: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.expires_at = None;
        if entry.is_running {
            entry.is_dirty = true;
            return;
        }
        let at = entry.allowed_at(now);
        self.schedule(key, at);
    }

    /// Returns the next Service that is due; [`WorkQueue::done`] must follow.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<ObjectName> {
        self.pop_timed(now).map(|(key, _)| key)
    }

    /// [`WorkQueue::pop`] with the time since the Service was due.
    pub(crate) fn pop_timed(&mut self, now: Instant) -> Option<(ObjectName, Duration)> {
        self.drop_expired(now);
        let due = |list: &BTreeMap<(Instant, u64), ObjectName>| {
            list.keys().next().filter(|(at, _)| *at <= now).copied()
        };
        let (due_at, key) = match (due(&self.fresh), due(&self.again)) {
            (Some(first), _) => (first.0, self.fresh.remove(&first)?),
            (None, Some(first)) => (first.0, self.again.remove(&first)?),
            (None, None) => return None,
        };
        let entry = self.entries.entry(key.clone()).or_default();
        entry.due = None;
        entry.is_running = true;
        entry.is_known = true;
        entry.bucket.begin(now);
        Some((key, now.saturating_duration_since(due_at)))
    }

    /// Time at which the next Service is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [&self.fresh, &self.again]
            .into_iter()
            .filter_map(|list| list.keys().next())
            .map(|(at, _)| *at)
            .min()
    }

    /// Number of Services that wait.
    pub(crate) fn len(&self) -> usize {
        self.fresh.len() + self.again.len()
    }

    /// Finishes an attempt. `jitter` in 0..1 spreads retries.
    pub(crate) fn done(&mut self, key: &ObjectName, outcome: Outcome, now: Instant, jitter: f64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.is_running = false;
        let was_dirty = std::mem::take(&mut entry.is_dirty);
        let retry = entry.end(outcome, now, jitter);
        let affected = was_dirty.then(|| entry.allowed_at(now));
        match retry.into_iter().chain(affected).min() {
            Some(at) => self.schedule(key.clone(), at),
            None => entry.compact(now),
        }
    }

    /// Forgets a deleted Service that does not wait, once its bucket is full: a label that is removed and added again must not cause
    /// more writes than other changes.
    pub(crate) fn forget(&mut self, key: &ObjectName, now: Instant) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.waits()) else {
            return;
        };
        let Some(full_at) = entry.bucket.full_at(now) else {
            self.entries.remove(key);
            return;
        };
        if entry.expires_at.is_none() {
            (entry.expires_at, entry.is_known) = (Some(full_at), false);
            self.expiring.push_back((full_at, key.clone()));
        }
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some((_, key)) = self.expiring.pop_front_if(|(full_at, _)| *full_at <= now) {
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.expires_at.is_some() && !entry.waits())
            {
                self.entries.remove(&key);
            }
        }
    }

    /// Returns true if the queue has an entry for a Service.
    #[cfg(test)]
    pub(crate) fn knows(&self, key: &ObjectName) -> bool {
        self.entries.contains_key(key)
    }

    fn schedule(&mut self, key: ObjectName, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        let list = if entry.is_known {
            &mut self.again
        } else {
            &mut self.fresh
        };
        match entry.due {
            Some((due, _)) if due <= at => return,
            Some(due) => drop(list.remove(&due)),
            None => {}
        }
        self.sequence += 1;
        entry.due = Some((at, self.sequence));
        list.insert((at, self.sequence), key);
    }
}

/// 100 ms, doubled per failure.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100)
        .saturating_mul(1 << failures.min(16))
        .min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests;
