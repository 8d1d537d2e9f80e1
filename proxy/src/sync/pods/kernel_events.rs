//! Handles netlink notifications: a pod whose routes, links or addresses another process changed is checked soon.
//!
//! Writes: nothing itself. The monitor drops notifications about our own changes.

use super::{Pod, Pods};
use crate::netlink::monitor::{NamespaceId, Notification};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::warn;

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
        if let Some((uid, pod)) = pod_of(&self.by_nsid, &mut self.by_uid, id) {
            pod.invalidate(uid, &mut self.timers);
        }
    }

    fn check_soon(&mut self, id: NamespaceId) {
        if let Some((uid, pod)) = pod_of(&self.by_nsid, &mut self.by_uid, id) {
            pod.routes_changed(uid, &mut self.timers);
        }
    }
}

fn pod_of<'a>(
    by_nsid: &'a BTreeMap<NamespaceId, String>,
    by_uid: &'a mut BTreeMap<String, Pod>,
    id: NamespaceId,
) -> Option<(&'a str, &'a mut Pod)> {
    let uid = by_nsid.get(&id)?;
    Some((uid, by_uid.get_mut(uid)?))
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
