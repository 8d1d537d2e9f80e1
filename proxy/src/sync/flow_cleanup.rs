//! Ends flows that are wrong under new rules: after the rules of all pods, one namespace after the other, and seldom in the same one.
//!
//! Writes: through `apply`. To look for flows takes up to milliseconds of CPU per namespace, which rules must not wait for. What is to be
//! looked for in a pod is collected meanwhile; a cleanup uses the rules that the pod has by then.

use super::Context;
use super::attempt::{Error, NetnsState};
use super::pod_state::{Done, Outcome, Pods};
use crate::index::{Index, LocalPod};
use crate::netns::apply::{Pending, end_flows};
use crate::netns::failure::chain;
use crate::netns::{self, Netns};
use futures::FutureExt;
use rules::PodRules;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between the end of a cleanup and the next one in the same namespace: flows heal within a second of the rules, however fast those
/// change. A process that is killed within that second leaves the flows of UDP ports that are gone.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a cleanup waits for rules that are being written into any pod. A pod that starts is tried all the time.
const PATIENCE: Duration = Duration::from_millis(250);

/// So many at once. Each may hold some thousand entries in memory.
const MAX_RUNNING: usize = 8;

/// A cleanup that takes longer keeps the other pods waiting no more: the owner of a pod begins as many flows as he likes.
const SLOW: Duration = Duration::from_millis(200);

/// What a pod still has to have cleaned up, and what to say of it afterwards.
pub(super) struct Deferred {
    pub(super) pending: Pending,
    /// The sandbox that it is about.
    sandbox: Option<String>,
    /// Since when the first of it waits.
    since: Instant,
    /// Of the last attempt. `None`: that failed, so what the namespace has is not known.
    outcome: Option<Outcome>,
}

impl Deferred {
    /// What is to be done and said after an attempt that wrote rules. Hands the outcome back if there is nothing to do.
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

/// Which pods wait for a cleanup, and which have one.
#[derive(Default)]
pub(super) struct Cleanups {
    waiting: BTreeMap<String, QueueEntry>,
    /// Since when.
    running: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, Debug)]
struct QueueEntry {
    since: Instant,
    /// When the last one in this namespace ended.
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
    /// How many run.
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

    /// Waits until it is a pod's entry, and takes it out.
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

/// What a cleanup came to.
pub(super) struct Cleaned {
    pub(super) pod: LocalPod,
    pub(super) netns_state: NetnsState,
    outcome: Outcome,
}

impl Pods {
    /// Queues a pod that was written into.
    pub(super) fn queue_cleanup(&mut self, uid: &str) {
        if let Some(entry) = self.queue_entry(uid) {
            self.cleanups.waiting.insert(uid.to_owned(), entry);
        }
    }

    /// When it is a pod's entry, if what its namespace has is known.
    fn queue_entry(&self, uid: &str) -> Option<QueueEntry> {
        let pod = self.by_uid.get(uid)?;
        let deferred = pod.deferred.as_ref()?;
        deferred.outcome.as_ref()?;
        Some(QueueEntry {
            since: deferred.since,
            last: pod.cleaned,
        })
    }

    /// An attempt comes first, or the pod is gone.
    pub(super) fn unqueue_cleanup(&mut self, uid: &str) {
        self.cleanups.waiting.remove(uid);
    }

    /// Those that wait are cleaned up now, as many as may be at once.
    pub(super) fn hurry_cleanups(&mut self, index: &Index) {
        while self.cleanups.running.len() < MAX_RUNNING
            && let Some((uid, _)) = self.cleanups.waiting.pop_first()
        {
            self.start_cleanup(&uid, index);
        }
    }

    /// Whether flows of a pod have waited for as long as they may, whatever else is to be done there.
    pub(super) fn has_overdue_cleanup(&self, uid: &str) -> bool {
        let entry = self.queue_entry(uid);
        entry.is_some_and(|entry| entry.due(true) <= Instant::now())
    }

    pub(super) fn start_cleanup(&mut self, uid: &str, index: &Index) {
        if let Some(held_back) = &mut self.held_back {
            // Another proxy's flows are none of ours. The attempt that follows queues it again.
            held_back.insert(uid.to_owned());
            return;
        }
        let Some((pod, local)) = self.by_uid.get_mut(uid).zip(index.pod(uid)) else {
            return;
        };
        // While it is at work the end of that queues it again.
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
                applied.conntrack = cleaned.err().map(|error| chain(&error));
            }
            Done::Cleaned(Cleaned {
                pod: local,
                netns_state,
                outcome,
            })
        });
    }

    /// A cleanup ended: only now it is known how the change went.
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

/// In the namespace that the rules are in. One that is gone has no flows.
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
