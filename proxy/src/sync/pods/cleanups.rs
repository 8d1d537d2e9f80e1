//! Cleanups of flows: when they start, and what follows them.
//!
//! Writes: through `flow_cleanup`, in a task per cleanup.

use super::{Done, Pods};
use crate::index::{Index, LocalPod};
use crate::sync::attempt::Error;
use crate::sync::flow_cleanup::clean;
use crate::sync::netns_state::NetnsState;
use crate::sync::outcome::Outcome;
use futures::FutureExt;
use process::error_chain;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// Finished cleanup.
pub(super) struct Cleaned {
    pod: LocalPod,
    netns_state: NetnsState,
    outcome: Outcome,
}

impl Pods {
    /// Queues the cleanup of a pod, if flows are to be deleted.
    pub(super) fn queue_cleanup(&mut self, uid: &str) {
        let pod = self.by_uid.get(uid);
        if let Some(entry) = pod.and_then(super::Pod::cleanup_entry) {
            self.cleanups.queue(uid, entry);
        }
    }

    /// Starts queued cleanups now, up to the limit.
    pub(super) fn hurry_cleanups(&mut self, index: &Index) {
        while let Some(uid) = self.cleanups.pop() {
            self.start_cleanup(&uid, index);
        }
    }

    /// Returns true when the cleanup of a pod has to start before its next attempt.
    pub(super) fn has_overdue_cleanup(&self, uid: &str) -> bool {
        let pod = self.by_uid.get(uid);
        let entry = pod.and_then(super::Pod::cleanup_entry);
        entry.is_some_and(|entry| entry.is_overdue(Instant::now()))
    }

    /// Starts the cleanup of a pod, unless an attempt runs, whose end queues it again.
    pub(super) fn start_cleanup(&mut self, uid: &str, index: &Index) {
        if self.hold_back(uid) {
            // Flows of another proxy are not ours. The next attempt queues the cleanup again.
            return;
        }
        let Some((pod, local)) = self.by_uid.get_mut(uid).zip(index.pod(uid)) else {
            return;
        };
        let Some((mut netns_state, pending, mut outcome)) = pod.clean() else {
            return;
        };
        let (shared, local) = (self.shared.clone(), local.clone());
        self.cleanups.started(uid);
        self.jobs.spawn(async move {
            if let Ok(applied) = &mut outcome.result {
                let rules = applied.rules.clone();
                let cleaned =
                    AssertUnwindSafe(clean(&shared, &local, pending, rules, &mut netns_state)).catch_unwind();
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
        self.cleanups.ended(&local.uid);
        let Some(pod) = self.owner(&local.uid, &netns_state) else {
            return;
        };
        pod.cleaned(&outcome);
        self.conclude(&local, netns_state, &outcome, index);
    }
}
