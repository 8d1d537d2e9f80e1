//! When a woken Service is due.
//!
//! Pure: the clock is an argument. The first change after quiet is due at once; after a write further changes are collected for
//! [`COALESCE`]; a failure is retried with a growing delay, for ever. Services that were never reconciled go first.

use crate::objects::ObjectKey;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// How long changes are collected after a write.
pub const COALESCE: Duration = Duration::from_millis(250);
/// The longest delay between two attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to write.
    Unchanged,
    /// Something was written.
    Wrote,
    /// It must be tried again, not before this long when the API server said so.
    Failed {
        /// `Retry-After` of a throttled request.
        retry_after: Option<Duration>,
    },
}

/// Services that wait for their turn.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    /// Never reconciled, by the time they are due.
    fresh: BTreeMap<(Instant, u64), ObjectKey>,
    /// Reconciled before, by the time they are due.
    again: BTreeMap<(Instant, u64), ObjectKey>,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<(Instant, u64)>,
    not_before: Option<Instant>,
    is_running: bool,
    was_woken_meanwhile: bool,
    is_known: bool,
    failures: u32,
}

impl Queue {
    /// A change concerns this Service.
    pub fn wake(&mut self, key: ObjectKey, now: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.is_running {
            entry.was_woken_meanwhile = true;
            return;
        }
        let at = entry.not_before.map_or(now, |not_before| not_before.max(now));
        self.schedule(key, at);
    }

    /// The next Service that is due; [`Queue::done`] must follow.
    pub fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        let due = |list: &BTreeMap<(Instant, u64), ObjectKey>| {
            list.keys().next().filter(|(at, _)| *at <= now).copied()
        };
        let key = match (due(&self.fresh), due(&self.again)) {
            (Some(first), _) => self.fresh.remove(&first),
            (None, Some(first)) => self.again.remove(&first),
            (None, None) => None,
        }?;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.due = None;
        entry.is_running = true;
        entry.is_known = true;
        Some(key)
    }

    /// When the next Service is due.
    pub fn next_due(&self) -> Option<Instant> {
        [&self.fresh, &self.again]
            .into_iter()
            .filter_map(|list| list.keys().next())
            .map(|(at, _)| *at)
            .min()
    }

    /// How many Services wait.
    pub fn len(&self) -> usize {
        self.fresh.len() + self.again.len()
    }

    /// Whether no Service waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An attempt ended. `jitter` in 0..1 spreads retries.
    pub fn done(&mut self, key: &ObjectKey, outcome: Outcome, now: Instant, jitter: f64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.is_running = false;
        let was_woken = std::mem::take(&mut entry.was_woken_meanwhile);
        let retry = match outcome {
            Outcome::Unchanged => {
                entry.failures = 0;
                None
            }
            Outcome::Wrote => {
                entry.failures = 0;
                entry.not_before = Some(now + COALESCE);
                None
            }
            Outcome::Failed { retry_after } => {
                let asked = retry_after.unwrap_or_default();
                // Spread in any case: many are turned away at one moment with one answer, and must not come back as one crowd.
                let delay = backoff(entry.failures)
                    .max(asked)
                    .mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = Some(now + COALESCE.max(asked));
                Some(now + delay)
            }
        };
        let woken = was_woken.then(|| entry.not_before.map_or(now, |not_before| not_before.max(now)));
        match retry.into_iter().chain(woken).min() {
            Some(at) => self.schedule(key.clone(), at),
            None => self.drop_if_quiet(key, now),
        }
    }

    /// Forgets a Service that is gone and waits for nothing.
    pub fn forget(&mut self, key: &ObjectKey) {
        if self
            .entries
            .get(key)
            .is_some_and(|entry| entry.due.is_none() && !entry.is_running)
        {
            self.entries.remove(key);
        }
    }

    /// Whether anything is remembered of a Service.
    #[cfg(test)]
    pub(crate) fn knows(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    fn schedule(&mut self, key: ObjectKey, at: Instant) {
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

    fn drop_if_quiet(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.not_before = entry.not_before.filter(|not_before| *not_before > now);
        }
    }
}

/// 100 ms, doubled per failure.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100)
        .saturating_mul(1 << failures.min(16))
        .min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const FAILED: Outcome = Outcome::Failed { retry_after: None };

    /// PodAddsBatching, PodUpdatesBatching and PodDeleteBatching of the Go original: changes close together are one write, but the
    /// first is not delayed.
    #[test]
    fn changes_close_together_are_one_write_and_the_first_is_not_delayed() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("web"), start);
        assert_eq!(queue.pop(start), Some(key("web")), "at once");
        queue.done(&key("web"), Outcome::Wrote, start + ms(5), 0.0);
        for at in [6, 50, 100] {
            queue.wake(key("web"), start + ms(at));
        }
        assert_eq!(queue.pop(start + ms(254)), None);
        assert_eq!(
            queue.pop(start + ms(255)),
            Some(key("web")),
            "three changes, one turn"
        );
        queue.done(&key("web"), Outcome::Wrote, start + ms(260), 0.0);
        assert_eq!(queue.next_due(), None);
        queue.wake(key("web"), start + ms(2000));
        assert_eq!(
            queue.pop(start + ms(2000)),
            Some(key("web")),
            "after quiet at once again"
        );
    }

    #[test]
    fn a_change_during_an_attempt_is_not_lost() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("web"), start);
        queue.pop(start);
        queue.wake(key("web"), start);
        assert_eq!(queue.pop(start), None, "one attempt at a time");
        queue.done(&key("web"), Outcome::Unchanged, start, 0.0);
        assert_eq!(queue.pop(start), Some(key("web")));
    }

    #[test]
    fn a_failure_is_retried_for_ever_with_a_growing_bounded_delay() {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("web"), now);
        let mut delays = Vec::new();
        for _ in 0..40 {
            queue.pop(now).unwrap();
            queue.done(&key("web"), FAILED, now, 1.0);
            let due = queue.next_due().unwrap();
            delays.push(due - now);
            now = due;
        }
        assert!(
            delays[0] < ms(200) && delays.windows(2).all(|pair| pair[0] <= pair[1]),
            "{delays:?}"
        );
        assert!(delays[39] >= MAX_BACKOFF && delays[39] <= MAX_BACKOFF.mul_f64(1.25));
    }

    #[test]
    fn a_new_change_need_not_wait_for_the_retry() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("web"), start);
        for _ in 0..8 {
            let now = queue.next_due().unwrap();
            queue.pop(now);
            queue.done(&key("web"), FAILED, now, 0.0);
        }
        let retry = queue.next_due().unwrap();
        let now = retry.checked_sub(Duration::from_secs(8)).unwrap();
        queue.wake(key("web"), now);
        assert!(queue.next_due().unwrap() < retry);
    }

    #[test]
    fn a_throttled_request_waits_as_long_as_the_server_asks() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("web"), start);
        queue.pop(start);
        queue.wake(key("web"), start);
        queue.done(
            &key("web"),
            Outcome::Failed {
                retry_after: Some(ms(3000)),
            },
            start,
            0.0,
        );
        assert_eq!(queue.next_due(), Some(start + ms(3000)));
    }

    #[test]
    fn those_turned_away_together_do_not_come_back_together() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for (name, jitter) in [("a", 0.0), ("b", 0.5), ("c", 1.0)] {
            queue.wake(key(name), start);
            queue.pop(start);
            let retry_after = Some(ms(2000));
            queue.done(&key(name), Outcome::Failed { retry_after }, start, jitter);
        }
        let due: Vec<_> = queue.again.keys().map(|(at, _)| *at - start).collect();
        assert_eq!(due, [ms(2000), ms(2250), ms(2500)]);
    }

    #[test]
    fn a_failing_service_delays_no_other() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("bad"), start);
        queue.pop(start);
        queue.wake(key("good"), start);
        assert_eq!(
            queue.pop(start),
            Some(key("good")),
            "while the bad one is still under way"
        );
        queue.done(&key("bad"), FAILED, start, 0.0);
        queue.done(&key("good"), Outcome::Wrote, start, 0.0);
        queue.wake(key("good"), start + ms(300));
        assert_eq!(queue.pop(start + ms(300)).as_ref(), Some(&key("bad")));
        assert_eq!(queue.pop(start + ms(300)).as_ref(), Some(&key("good")));
    }

    #[test]
    fn services_not_seen_yet_go_first() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.wake(key("old"), start);
        queue.pop(start);
        queue.done(&key("old"), Outcome::Unchanged, start, 0.0);
        queue.wake(key("old"), start);
        queue.wake(key("new"), start + ms(1));
        assert_eq!(queue.pop(start + ms(1)), Some(key("new")));
        assert_eq!(queue.pop(start + ms(1)), Some(key("old")));
    }

    proptest! {
        #[test]
        fn every_change_is_followed_by_an_attempt(steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..400_u64), 1..200)) {
            let mut now = Instant::now();
            let mut queue = Queue::default();
            let mut pending: BTreeMap<ObjectKey, bool> = BTreeMap::new();
            let mut running: Vec<ObjectKey> = Vec::new();
            for (action, which, wait) in steps {
                now += ms(wait);
                let name = key(&which.to_string());
                match action {
                    0 | 1 => {
                        queue.wake(name.clone(), now);
                        pending.insert(name, true);
                    }
                    2 => if let Some(popped) = queue.pop(now) {
                        prop_assert!(!running.contains(&popped), "two attempts at once");
                        pending.insert(popped.clone(), false);
                        running.push(popped);
                    },
                    _ => if let Some(done) = running.pop() {
                        queue.done(&done, if wait % 2 == 0 { Outcome::Wrote } else { Outcome::Unchanged }, now, 0.5);
                    },
                }
            }
            for done in running.drain(..) {
                queue.done(&done, Outcome::Wrote, now, 0.0);
            }
            now += Duration::from_mins(1);
            while let Some(popped) = queue.pop(now) {
                pending.insert(popped.clone(), false);
                queue.done(&popped, Outcome::Unchanged, now, 0.0);
            }
            prop_assert!(pending.values().all(|pending| !pending), "a change was lost");
        }
    }
}
