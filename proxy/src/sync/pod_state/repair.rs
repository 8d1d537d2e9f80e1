//! Changes of a pod's rules by other processes.
//!
//! Pure, but for the clock.

use super::SETTLE;
use crate::sync::repair::poll_interval::CheckBackoff;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of changes of one pod's rules.
#[derive(Debug, Default)]
pub(super) struct RulesetWatch {
    /// Another process changed nftables rules, perhaps ours, since the last attempt.
    is_dirty: bool,
    backoff: CheckBackoff,
    /// Shared with the thread that reads the generation of the rules.
    polling: Arc<()>,
}

impl RulesetWatch {
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    pub(super) fn changed(&mut self) {
        self.is_dirty = true;
    }

    /// Returns the delay of the next check.
    pub(super) fn wait(&self) -> Duration {
        SETTLE.max(self.backoff.wait(Instant::now()))
    }

    /// Records an attempt that took `took`: a check, if another process had changed rules.
    pub(super) fn attempted(&mut self, is_disturbed: bool, is_repaired: bool, took: Duration) {
        if std::mem::take(&mut self.is_dirty) | is_disturbed {
            self.backoff.checked(is_repaired, took, Instant::now());
        }
    }

    /// Begins a poll, which lasts until the returned value is dropped. `None`: one is running.
    pub(super) fn poll(&self) -> Option<Arc<()>> {
        (Arc::strong_count(&self.polling) == 1).then(|| Arc::clone(&self.polling))
    }
}
