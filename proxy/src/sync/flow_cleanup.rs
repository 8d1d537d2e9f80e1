//! Deletes flows that are stale under new rules: after the rules of all pods are written, with a pause between two cleanups of one
//! namespace.
//!
//! Writes: through `apply`. A search for flows takes up to milliseconds of CPU per namespace, and rules must not wait for it. The changes of a
//! pod are collected meanwhile; a cleanup uses the rules that the pod has by then.

use super::attempt::Error;
use super::netns_state::NetnsState;
use super::shared::Shared;
use crate::index::LocalPod;
use crate::netns::apply::{Pending, end_flows};
use crate::netns::{self, Netns};
use rules::PodRules;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause between two cleanups of one namespace: stale flows are deleted within a second of the rules, however often those change. A
/// process that is killed within that second leaves flows of removed UDP ports.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest wait of a cleanup for rules that are being written into any pod. A pod that starts is retried all the time.
const PATIENCE: Duration = Duration::from_millis(250);

/// Concurrent cleanups. Each may keep some thousand entries in memory.
const MAX_RUNNING: usize = 8;

/// A cleanup that takes longer does not delay other pods any further: the owner of a pod may open any number of flows.
const SLOW: Duration = Duration::from_millis(200);

/// Queue of cleanups.
#[derive(Default)]
pub(super) struct Cleanups {
    waiting: BTreeMap<String, QueueEntry>,
    /// Start times.
    running: BTreeMap<String, Instant>,
}

/// Pending cleanup of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueEntry {
    /// Time of the oldest change.
    pub(super) since: Instant,
    /// End of the last cleanup in this namespace.
    pub(super) last: Option<Instant>,
}

impl QueueEntry {
    /// Returns true when the cleanup has to start before the next attempt.
    pub(super) fn is_overdue(self, now: Instant) -> bool {
        self.due(true) <= now
    }

    fn due(self, rules_are_written: bool) -> Instant {
        let since = if rules_are_written {
            self.since + PATIENCE
        } else {
            self.since
        };
        self.last.map_or(since, |last| since.max(last + PAUSE))
    }
}

impl Cleanups {
    /// Returns the number of running cleanups.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    fn first_due(&self, rules_are_written: bool, now: Instant) -> Option<(&String, Instant)> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        let free = self.running.values().map(|began| *began + SLOW).max();
        let entries = self
            .waiting
            .iter()
            .map(|(uid, entry)| (uid, entry.due(rules_are_written)));
        let (uid, due) = entries.min_by_key(|(_, due)| *due)?;
        Some((
            uid,
            free.filter(|free| *free > now).map_or(due, |free| free.max(due)),
        ))
    }

    /// Waits until the cleanup of a pod is due, and removes it from the queue.
    pub(super) async fn next_due(&mut self, rules_are_written: bool) -> String {
        let Some((uid, due)) = self.first_due(rules_are_written, Instant::now()) else {
            return std::future::pending().await;
        };
        let uid = uid.clone();
        tokio::time::sleep_until(due.into()).await;
        self.waiting.remove(&uid);
        uid
    }

    pub(super) fn queue(&mut self, uid: &str, entry: QueueEntry) {
        self.waiting.insert(uid.to_owned(), entry);
    }

    /// Removes a cleanup from the queue: an attempt comes first, or the pod is deleted.
    pub(super) fn unqueue(&mut self, uid: &str) {
        self.waiting.remove(uid);
    }

    /// Removes a cleanup from the queue, due or not, unless too many are running.
    pub(super) fn pop(&mut self) -> Option<String> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        self.waiting.pop_first().map(|(uid, _)| uid)
    }

    pub(super) fn started(&mut self, uid: &str) {
        self.running.insert(uid.to_owned(), Instant::now());
    }

    pub(super) fn ended(&mut self, uid: &str) {
        self.running.remove(uid);
    }
}

/// Deletes stale flows in the namespace of the rules. A deleted namespace has no flows.
pub(super) async fn clean(
    shared: &Shared,
    pod: &LocalPod,
    pending: Pending,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<(), Error> {
    let Some(sandbox) = &netns_state.sandbox else {
        return Ok(());
    };
    let (_sandbox_lock, _) = shared.sandbox_locks.lock(sandbox).await;
    if netns_state.is_abandoned.load(Ordering::Acquire) {
        return Ok(());
    }
    let opened = if pod.is_host {
        Netns::home()
    } else {
        Netns::open(&sandbox.netns)
    };
    let netns = match opened {
        Err(netns::Error::Gone { .. }) => return Ok(()),
        opened => opened?,
    };
    let ended = netns.spawn(move || end_flows(&pending, &rules))?;
    ended.await.map_err(|_| Error::Lost)??.map_err(Error::Flows)
}

#[cfg(test)]
mod tests;
