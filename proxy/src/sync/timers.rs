//! Timers of the next attempts of pods.
//!
//! Pure, but for the clock. A pod has at most one timer; the earliest wish counts.

use futures::StreamExt;
use std::time::{Duration, Instant};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

/// Timers of all pods, by UID.
pub(super) struct Timers(DelayQueue<String>);

/// Timer of one pod. To drop it without [`Timers::cancel`] is correct only after it fired.
#[derive(Debug)]
pub(super) struct Timer {
    key: Key,
    /// Set if a check after a change by another process is planned: its time. The attempt may be earlier, and is the check then.
    check_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self(DelayQueue::new())
    }

    /// Schedules an attempt after `wait` unless an earlier one is scheduled.
    pub(super) fn retry(&mut self, timer: &mut Option<Timer>, uid: &str, wait: Duration) {
        let due = Instant::now() + wait;
        match timer {
            None => *timer = Some(self.insert(uid, wait, None)),
            Some(timer) if self.due(timer) <= due => {}
            Some(timer) => self.0.reset(&timer.key, wait),
        }
    }

    /// Schedules a check, routes included, after `wait` unless an earlier one is scheduled.
    pub(super) fn check(&mut self, timer: &mut Option<Timer>, uid: &str, wait: Duration) {
        let at = Instant::now() + wait;
        match timer {
            None => *timer = Some(self.insert(uid, wait, Some(at))),
            Some(timer) if timer.check_at.is_some_and(|planned| planned <= at) => {}
            Some(timer) => {
                timer.check_at = Some(at);
                if self.due(timer) > at {
                    self.0.reset(&timer.key, wait);
                }
            }
        }
    }

    /// Removes a timer. Returns true if a check was planned.
    pub(super) fn cancel(&mut self, Timer { key, check_at }: Timer) -> bool {
        self.0.remove(&key);
        check_at.is_some()
    }

    /// Waits for the next timer; returns the UID of its pod. `None`: there is no timer.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.0
            .next()
            .await
            .map(tokio_util::time::delay_queue::Expired::into_inner)
    }

    fn insert(&mut self, uid: &str, wait: Duration, check_at: Option<Instant>) -> Timer {
        let key = self.0.insert(uid.to_owned(), wait);
        Timer { key, check_at }
    }

    fn due(&self, timer: &Timer) -> Instant {
        self.0.deadline(&timer.key).into_std()
    }
}

#[cfg(test)]
impl Timers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets the earliest timer fire now; returns the UID of its pod.
    pub(super) fn fire(&mut self) -> Option<String> {
        let key = self.0.peek()?;
        Some(self.0.remove(&key).into_inner())
    }

    /// Returns the time until the attempt, and until the check if one is planned, rounded to minutes.
    pub(super) fn waits(&self, timer: &Timer) -> (u64, Option<u64>) {
        let minutes = |at: Instant| {
            let wait = at.saturating_duration_since(Instant::now());
            (wait + Duration::from_secs(30)).as_secs() / 60
        };
        (minutes(self.due(timer)), timer.check_at.map(minutes))
    }
}
