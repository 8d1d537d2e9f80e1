//! Pace of reconciles: the first ones follow each other at once, then two a second.
//!
//! Pure. Each reconcile takes a constant number of requests, and changes that arrive before it begins share it. Without a pace, a
//! thousand nodes that fail one after the other would cause as many reconciles and as many writes of the status.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval of reconciles while changes keep arriving.
const INTERVAL: Duration = Duration::from_millis(500);
/// Number of reconciles without a delay after a quiet time; a quiet interval restores one.
const BURST: u32 = 5;

/// Time at which the reconciles so far would end, one in each interval (the theoretical arrival time of GCRA).
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Counts a reconcile that is to begin `now`, and returns the time by which it has to be delayed.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = end.map_or(now, |end| end.max(now));
        *end = Some(before + INTERVAL);
        before
            .duration_since(now)
            .saturating_sub(INTERVAL.saturating_mul(BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts of reconciles that are wanted all the time, in milliseconds.
    fn starts(pace: &Pace, from: Instant, count: usize) -> Vec<u128> {
        let mut now = from;
        let mut next = || {
            now += pace.delay(now);
            now.duration_since(from).as_millis()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn first_reconciles_are_not_delayed_and_later_ones_have_an_interval() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(starts(&pace, start, 8), [0, 0, 0, 0, 0, 500, 1_000, 1_500]);
    }

    #[test]
    fn quiet_time_restores_the_burst() {
        let (pace, start) = (Pace::default(), Instant::now());
        starts(&pace, start, 5);
        let later = start + Duration::from_secs(1);
        assert_eq!(starts(&pace, later, 4), [0, 0, 500, 1_000]);
        let much_later = start + Duration::from_hours(1);
        assert_eq!(starts(&pace, much_later, 6), [0, 0, 0, 0, 0, 500]);
    }
}
