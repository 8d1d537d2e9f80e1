//! What becomes of the kernel's news: a pod whose routes, links or addresses somebody changed is looked at soon.
//!
//! Writes: nothing itself. What we did ourselves is no news.

use super::pod_state::Pods;
use crate::netlink::monitor::{NamespaceId, Notification};
use std::time::{Duration, Instant};
use tracing::warn;

/// How long after a change by others a pod is looked at: one change seldom comes alone.
pub(super) const SETTLE: Duration = Duration::from_millis(300);

/// Shortest time between two looks at everything because more happened than could be told.
const OVERRUN_PAUSE: Duration = Duration::from_secs(10);

/// More happened than could be told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrun {
    /// When to look at everything.
    due: Option<Instant>,
    /// When that was done last.
    last: Option<Instant>,
}

impl Overrun {
    /// It did: everything is to be looked at, but not before the pause after the last look is over.
    fn happened(&mut self, now: Instant) {
        let at = self.last.map_or(now, |last| now.max(last + OVERRUN_PAUSE));
        self.due.get_or_insert(at);
    }

    /// Ends when everything is to be looked at.
    pub(super) async fn wait(self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Pods {
    /// From now on the kernel tells of changes by others.
    pub(super) fn monitor_started(&mut self) {
        self.has_monitor = true;
    }

    /// Somebody, perhaps we, changed something: a pod that it concerns is looked at soon.
    pub(super) fn notified(&mut self, notification: Notification) {
        match notification {
            Notification::Routes(id) => self.check_soon(id),
            Notification::Overrun => {
                self.overrun.happened(Instant::now());
            }
        }
    }

    /// Looks at everything, for what happened to whom could not be told.
    pub(super) fn resync_all(&mut self) {
        self.overrun = Overrun {
            due: None,
            last: Some(Instant::now()),
        };
        warn!("Missed what others changed in network namespaces: looking at all of them");
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
            // Nothing is wrong there now. The next attempt reads addresses and routes again.
            pod.routes_dirty_since.get_or_insert_with(Instant::now);
        } else if pod.netns_state.is_some() {
            self.check_within(&uid, SETTLE);
        } else {
            pod.check_after_attempt();
        }
    }

    /// A pod is looked at, routes included, after this time, unless it will be sooner.
    pub(super) fn check_within(&mut self, uid: &str, wait: Duration) {
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
    fn what_happens_soon_after_a_look_is_looked_for_when_the_pause_is_over() {
        let (mut overrun, now) = (Overrun::default(), Instant::now());
        overrun.happened(now);
        assert_eq!(overrun.due, Some(now));
        overrun = Overrun {
            due: None,
            last: Some(now),
        };
        for second in [1, 2, 8] {
            overrun.happened(now + Duration::from_secs(second));
            assert_eq!(overrun.due, Some(now + OVERRUN_PAUSE));
        }
    }
}
