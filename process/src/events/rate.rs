//! Rate limits of Events.
//!
//! Pure: the clock is an argument. The number of objects is bounded: objects without end take the place of those with the fewest Events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Objects whose rate is known at the same time.
const CAPACITY: usize = 1024;

/// Events on one object without a pause: more than the operator sends at once, and than problems of a Service.
pub(super) const OBJECT: Limit = Limit {
    pause: Duration::from_secs(30),
    burst: 64,
};

/// A rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Time between two Events, on average.
    pub(super) pause: Duration,
    /// Events that may follow each other without a pause.
    pub(super) burst: u32,
}

/// The Events of one object so far, as the time at which the rate of one per pause allows for all of them (GCRA).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate(Option<Instant>);

impl Rate {
    /// Returns true if another Event is within the limit.
    pub(super) fn allows(self, limit: Limit, at: Instant) -> bool {
        self.0
            .is_none_or(|paid_until| paid_until <= at + limit.pause * (limit.burst - 1))
    }

    /// Counts an Event.
    pub(super) fn count(&mut self, limit: Limit, at: Instant) {
        self.0 = Some(self.0.unwrap_or(at).max(at) + limit.pause);
    }
}

/// Rates by object.
#[derive(Debug, Default)]
pub(super) struct ObjectRates(HashMap<String, Rate>);

impl ObjectRates {
    /// Returns true if another Event on `object` is within the limit.
    pub(super) fn allows(&self, object: &str, at: Instant) -> bool {
        self.0.get(object).is_none_or(|rate| rate.allows(OBJECT, at))
    }

    /// Counts an Event on `object`. The object with the fewest Events lately makes room.
    pub(super) fn count(&mut self, object: String, at: Instant) {
        if self.0.len() >= CAPACITY && !self.0.contains_key(&object) {
            self.0
                .retain(|_, rate| rate.0.is_some_and(|paid_until| paid_until > at));
            self.drop_least();
        }
        self.0.entry(object).or_default().count(OBJECT, at);
    }

    fn drop_least(&mut self) {
        if self.0.len() < CAPACITY {
            return;
        }
        let least = self.0.iter().min_by_key(|(_, rate)| rate.0);
        if let Some(object) = least.map(|(object, _)| object.clone()) {
            self.0.remove(&object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_gets_a_burst_of_events_and_then_one_per_pause() {
        let (mut rates, now) = (ObjectRates::default(), Instant::now());
        for _ in 0..OBJECT.burst {
            assert!(rates.allows("web", now));
            rates.count("web".to_owned(), now);
        }
        assert!(!rates.allows("web", now));
        assert!(rates.allows("db", now), "another object");
        assert!(rates.allows("web", now + OBJECT.pause));
        rates.count("web".to_owned(), now + OBJECT.pause);
        assert!(!rates.allows("web", now + OBJECT.pause));
    }

    #[test]
    fn the_number_of_objects_is_bounded_and_the_busiest_stays_limited() {
        let (mut rates, now) = (ObjectRates::default(), Instant::now());
        for _ in 0..OBJECT.burst {
            rates.count("busy".to_owned(), now);
        }
        for n in 0..CAPACITY * 2 {
            rates.count(n.to_string(), now);
            assert!(rates.0.len() <= CAPACITY);
        }
        assert!(!rates.allows("busy", now));
        rates.count("late".to_owned(), now + OBJECT.pause * (OBJECT.burst + 1));
        assert_eq!(rates.0.len(), 1, "idle objects make room first");
    }
}
