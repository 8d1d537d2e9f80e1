//! Handles netlink notifications: a pod whose routes, links or addresses another process changed is checked soon.
//!
//! Writes: nothing itself. The monitor drops notifications about our own changes.

use super::Pods;
use crate::netlink::monitor::{NamespaceId, Notification};
use std::time::{Duration, Instant};
use tracing::warn;

/// Delay between a change by another process and the check of the pod: changes come in bursts.
pub(in crate::sync) const SETTLE: Duration = Duration::from_millis(300);

/// Shortest time between two full resyncs after an overrun of the receive buffer.
const OVERRUN_PAUSE: Duration = Duration::from_secs(10);

/// Overrun of the receive buffer: notifications were lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrun {
    /// Time of the next full resync.
    due: Option<Instant>,
    /// Time of the last full resync.
    last: Option<Instant>,
}

impl Overrun {
    /// Schedules a full resync, after the pause since the last one.
    fn schedule(&mut self, now: Instant) {
        let at = self.last.map_or(now, |last| now.max(last + OVERRUN_PAUSE));
        self.due.get_or_insert(at);
    }

    /// Waits until a full resync is due.
    pub(super) async fn wait(self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Pods {
    /// The netlink monitor runs: pods are polled less often.
    pub(in crate::sync) fn monitor_started(&mut self) {
        self.has_monitor = true;
    }

    /// Handles a notification: schedules a check of the affected pod.
    pub(in crate::sync) fn notified(&mut self, notification: Notification) {
        match notification {
            Notification::Routes(id) => self.check_soon(id),
            Notification::Overrun => {
                self.overrun.schedule(Instant::now());
            }
        }
    }

    /// Checks every pod, because notifications were lost.
    pub(super) fn resync_all(&mut self) {
        self.overrun = Overrun {
            due: None,
            last: Some(Instant::now()),
        };
        warn!("Netlink receive buffer overrun, resyncing all pods");
        let ids: Vec<_> = self.by_nsid.keys().copied().collect();
        for id in ids {
            self.invalidate(id);
        }
    }

    fn invalidate(&mut self, id: NamespaceId) {
        let Some(pod) = self.by_nsid.get(&id).and_then(|uid| self.by_uid.get_mut(uid)) else {
            return;
        };
        if let Some(netns_state) = &mut pod.netns_state {
            netns_state.invalidate();
        } else {
            pod.check_after_attempt();
        }
        self.check_soon(id);
    }

    fn check_soon(&mut self, id: NamespaceId) {
        let Some(uid) = self.by_nsid.get(&id).cloned() else {
            return;
        };
        let Some(pod) = self.by_uid.get_mut(&uid) else {
            return;
        };
        if !pod.has_rules {
            // Nothing to repair. The next attempt reads addresses and routes again.
            pod.routes_dirty_since.get_or_insert_with(Instant::now);
        } else if pod.netns_state.is_some() {
            self.check_within(&uid, SETTLE);
        } else {
            pod.check_after_attempt();
        }
    }

    /// Schedules a check of a pod, routes included, after `wait` unless an earlier one is scheduled.
    pub(in crate::sync) fn check_within(&mut self, uid: &str, wait: Duration) {
        let at = Instant::now() + wait;
        let Some(pod) = self.by_uid.get_mut(uid) else {
            return;
        };
        if pod.check_at.is_some_and(|planned| planned <= at) {
            return;
        }
        pod.check_at = Some(at);
        if let Some(key) = &pod.due {
            if self.due.deadline(key).into_std() <= at {
                return;
            }
            self.due.remove(key);
        }
        pod.due = Some(self.due.insert(uid.to_owned(), wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_soon_after_a_resync_is_handled_after_the_pause() {
        let (mut overrun, now) = (Overrun::default(), Instant::now());
        overrun.schedule(now);
        assert_eq!(overrun.due, Some(now));
        overrun = Overrun {
            due: None,
            last: Some(now),
        };
        for second in [1, 2, 8] {
            overrun.schedule(now + Duration::from_secs(second));
            assert_eq!(overrun.due, Some(now + OVERRUN_PAUSE));
        }
    }
}
