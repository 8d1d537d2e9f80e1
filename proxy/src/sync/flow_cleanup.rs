//! Deletes flows that are stale under new rules: after the rules of all pods are written, with a pause between two cleanups of one
//! namespace.
//!
//! Writes: through `apply`. A search for flows takes up to milliseconds of CPU per namespace, and rules must not wait for it. The changes of a
//! pod are collected meanwhile; a cleanup uses the rules that the pod has by then.

use super::Context;
use super::attempt::{Error, NetnsState};
use super::pod_state::{Done, Outcome, Pods};
use crate::index::{Index, LocalPod};
use crate::netns::apply::{Pending, end_flows};
use crate::netns::{self, Netns};
use futures::FutureExt;
use process::error_chain;
use rules::PodRules;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
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

/// Deferred cleanup of a pod, and the result of the attempt, which is reported afterwards.
pub(super) struct Deferred {
    pub(super) pending: Pending,
    /// Sandbox of the flows.
    sandbox: Option<String>,
    /// Time of the oldest pending change.
    since: Instant,
    /// Result of the last attempt. `None`: it failed, so the rules of the namespace are unknown.
    outcome: Option<Outcome>,
}

impl Deferred {
    /// Defers the cleanup after an attempt that wrote rules. Returns the outcome if there is nothing to clean up.
    pub(super) fn after(
        deferred: &mut Option<Self>,
        mut outcome: Outcome,
        sandbox: Option<&str>,
        now: Instant,
    ) -> Option<Outcome> {
        let before = deferred
            .take()
            .filter(|deferred| deferred.sandbox.as_deref() == sandbox);
        let Ok(applied) = &mut outcome.result else {
            *deferred = before.map(|before| Self {
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
        *deferred = (!pending.is_empty()).then(|| Self {
            pending,
            sandbox: sandbox.map(str::to_owned),
            since,
            outcome,
        });
        handed_back
    }
}

/// Queue of cleanups.
#[derive(Default)]
pub(super) struct Cleanups {
    waiting: BTreeMap<String, QueueEntry>,
    /// Start times.
    running: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct QueueEntry {
    since: Instant,
    /// End of the last cleanup in this namespace.
    last: Option<Instant>,
}

impl QueueEntry {
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
}

/// Finished cleanup.
pub(super) struct Cleaned {
    pub(super) pod: LocalPod,
    pub(super) netns_state: NetnsState,
    outcome: Outcome,
}

impl Pods {
    /// Queues the cleanup of a pod.
    pub(super) fn queue_cleanup(&mut self, uid: &str) {
        if let Some(entry) = self.queue_entry(uid) {
            self.cleanups.waiting.insert(uid.to_owned(), entry);
        }
    }

    /// Returns the queue entry of a pod, if the rules of its namespace are known.
    fn queue_entry(&self, uid: &str) -> Option<QueueEntry> {
        let pod = self.by_uid.get(uid)?;
        let deferred = pod.deferred.as_ref()?;
        deferred.outcome.as_ref()?;
        Some(QueueEntry {
            since: deferred.since,
            last: pod.cleaned,
        })
    }

    /// Removes the cleanup of a pod: an attempt comes first, or the pod is deleted.
    pub(super) fn unqueue_cleanup(&mut self, uid: &str) {
        self.cleanups.waiting.remove(uid);
    }

    /// Starts queued cleanups now, up to the limit.
    pub(super) fn hurry_cleanups(&mut self, index: &Index) {
        while self.cleanups.running.len() < MAX_RUNNING
            && let Some((uid, _)) = self.cleanups.waiting.pop_first()
        {
            self.start_cleanup(&uid, index);
        }
    }

    /// Returns true when the cleanup of a pod has to start before its next attempt.
    pub(super) fn has_overdue_cleanup(&self, uid: &str) -> bool {
        let entry = self.queue_entry(uid);
        entry.is_some_and(|entry| entry.due(true) <= Instant::now())
    }

    pub(super) fn start_cleanup(&mut self, uid: &str, index: &Index) {
        if let Some(held_back) = &mut self.held_back {
            // Flows of another proxy are not ours. The next attempt queues the cleanup again.
            held_back.insert(uid.to_owned());
            return;
        }
        let Some((pod, local)) = self.by_uid.get_mut(uid).zip(index.pod(uid)) else {
            return;
        };
        // The end of a running attempt queues the cleanup again.
        let Some(deferred) = pod.deferred.as_mut().filter(|_| pod.netns_state.is_some()) else {
            return;
        };
        let Some(mut outcome) = deferred.outcome.take() else {
            return;
        };
        let Some(mut netns_state) = pod.netns_state.take() else {
            return;
        };
        let pending = deferred.pending.clone();
        let (context, local) = (self.context.clone(), local.clone());
        self.cleanups.running.insert(uid.to_owned(), Instant::now());
        self.jobs.spawn(async move {
            if let Ok(applied) = &mut outcome.result {
                let rules = applied.rules.clone();
                let cleaned = AssertUnwindSafe(clean(&context, &local, pending, rules, &mut netns_state))
                    .catch_unwind();
                let cleaned = cleaned.await.unwrap_or(Err(Error::Lost));
                applied.conntrack = cleaned.err().map(|error| error_chain(&error));
            }
            Done::Cleaned(Cleaned {
                pod: local,
                netns_state,
                outcome,
            })
        });
    }

    /// Handles the end of a cleanup, which concludes the change.
    pub(super) fn cleaned(&mut self, cleaned: Cleaned, index: &Index) {
        let Cleaned {
            pod: local,
            netns_state,
            outcome,
        } = cleaned;
        self.cleanups.running.remove(&local.uid);
        let Some(pod) = self.by_uid.get_mut(&local.uid) else {
            return;
        };
        pod.netns_state = Some(netns_state);
        pod.cleaned = Some(Instant::now());
        let is_clean = outcome
            .result
            .as_ref()
            .is_ok_and(|applied| applied.conntrack.is_none());
        if let Some(deferred) = pod.deferred.as_mut().filter(|_| is_clean) {
            deferred.pending.done();
        }
        pod.deferred.take_if(|deferred| deferred.pending.is_empty());
        self.conclude(&local, outcome, index);
    }
}

/// Deletes stale flows in the namespace of the rules. A deleted namespace has no flows.
async fn clean(
    context: &Context,
    pod: &LocalPod,
    pending: Pending,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<(), Error> {
    let Some(sandbox) = &netns_state.sandbox else {
        return Ok(());
    };
    let (_sandbox_lock, _) = context.sandbox_locks.lock(sandbox).await;
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
