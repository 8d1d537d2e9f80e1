//! Rate limit for the writes of one Service: a token bucket.
//!
//! Pure: the clock is an argument. The bucket is the generic cell rate algorithm (ITU-T I.371): one instant encodes the number of tokens left.
//! A crate (`governor`) would bring the same dozen lines of arithmetic with a clock and a map of its own; the queue has both.
//!
//! An empty bucket makes a change wait, so that others can join it. When none does although the wait was longer than the last changes
//! were apart, waiting saves no write: the next change follows the result of the last. The bucket is then filled.

use std::time::Duration;
use tokio::time::Instant;

/// Writes that may follow one another without a pause.
pub(super) const BURST: u32 = 4;
/// The time in which one token comes back.
pub(super) const REFILL: Duration = Duration::from_millis(250);
/// The shortest wait that can show that no other change joins.
const PROOF: Duration = Duration::from_millis(125);

/// The tokens of one Service and what is known about its last changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenBucket {
    /// Time at which all tokens are back; `None` if they are.
    full_at: Option<Instant>,
    last_change: Option<Instant>,
    /// Between the last change and the one before.
    gap: Option<Duration>,
    /// Since the last attempt began.
    changes: u32,
}

impl TokenBucket {
    /// Time of the next token: now or later.
    pub(super) fn next_token(&self, now: Instant) -> Instant {
        let first = self
            .full_at
            .and_then(|full_at| full_at.checked_sub(REFILL * (BURST - 1)));
        first.map_or(now, |first| first.max(now))
    }

    /// A change of what the Service serves.
    pub(super) fn change(&mut self, now: Instant) {
        self.gap = self
            .last_change
            .map(|last_change| now.saturating_duration_since(last_change));
        self.last_change = Some(now);
        self.changes = self.changes.saturating_add(1);
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.waited_for_none(now) {
            self.full_at = None;
        }
        self.changes = 0;
    }

    /// One change waited alone.
    fn waited_for_none(&self, now: Instant) -> bool {
        let (Some(last_change), Some(gap)) = (self.last_change, self.gap) else {
            return false;
        };
        self.changes == 1 && now.saturating_duration_since(last_change) >= PROOF.max(gap)
    }

    /// A write was sent.
    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full_at| full_at.max(now)) + REFILL);
    }

    /// Time from which nothing needs to be remembered; `None` if that is now.
    pub(super) fn full_at(&self, now: Instant) -> Option<Instant> {
        self.full_at.filter(|full_at| *full_at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Returns the times of the writes for changes at these times, each written as early as allowed.
    fn writes(start: Instant, changes: &[u64]) -> Vec<u64> {
        let mut bucket = TokenBucket::default();
        let mut writes = Vec::new();
        let mut rest = changes.iter().map(|at| start + ms(*at)).peekable();
        while let Some(first) = rest.next() {
            bucket.change(first);
            let granted = bucket.next_token(first);
            while let Some(joining) = rest.next_if(|at| *at < granted) {
                bucket.change(joining);
            }
            bucket.begin(granted);
            bucket.take(granted);
            writes.push(u64::try_from((granted - start).as_millis()).unwrap());
        }
        writes
    }

    #[test]
    fn a_burst_is_written_at_once_and_then_one_write_in_each_quarter_of_a_second() {
        let every_ms: Vec<_> = (0..2000).collect();
        let written = writes(Instant::now(), &every_ms);
        assert_eq!(written[..6], [0, 1, 2, 3, 250, 500]);
        assert_eq!(written.len(), 4 + 8, "{written:?}");
    }

    #[test]
    fn tokens_are_refilled_one_by_one() {
        assert_eq!(
            writes(Instant::now(), &[0, 1, 2, 3, 260, 261]),
            [0, 1, 2, 3, 260, 500]
        );
        assert_eq!(
            writes(Instant::now(), &[0, 1, 2, 3, 1001, 1002, 1003, 1004, 1005]),
            [0, 1, 2, 3, 1001, 1002, 1003, 1004, 1251]
        );
    }

    #[test]
    fn a_change_that_waits_alone_for_longer_than_the_last_were_apart_fills_the_bucket() {
        // The fifth waits from 40 to 250 and nothing joins it.
        let alone = [0, 10, 20, 30, 40, 260, 270, 280, 290];
        assert_eq!(
            writes(Instant::now(), &alone),
            [0, 10, 20, 30, 250, 260, 270, 280, 500]
        );
    }

    #[test]
    fn a_short_wait_does_not_fill_the_bucket() {
        // One change each 100 ms: each wait ends before the next change could join.
        let steady: Vec<_> = (0..300).map(|n| n * 100).collect();
        let count = writes(Instant::now(), &steady).len();
        assert!(count <= 4 + 30 * 4, "{count} writes in 30 s");
    }
}
