//! The Events that were published lately, by series.
//!
//! Pure: the clock is an argument. Bounded: the API server has the rest, under the names that [`super::event`] gives.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A series ends when its Event has not been repeated for this time, as in client-go and kube.
const LIFETIME: Duration = Duration::from_mins(6);

/// Series that are known at the same time: with keys and names at most 1 MB.
const CAPACITY: usize = 1024;

/// A published Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Name of the Event.
    pub(super) name: String,
    /// Times that it was published.
    pub(super) count: i32,
}

impl Counted {
    pub(super) fn first(name: String) -> Self {
        Self { name, count: 1 }
    }

    pub(super) fn next(self) -> Self {
        Self {
            count: self.count.saturating_add(1),
            ..self
        }
    }
}

/// Published Events by the key of their series.
#[derive(Debug, Default)]
pub(super) struct SeriesCache(HashMap<String, (Instant, Counted)>);

impl SeriesCache {
    /// Returns the Event that a repeated one is counted on.
    pub(super) fn get(&self, key: &str, now: Instant) -> Option<Counted> {
        let (last, counted) = self.0.get(key)?;
        (now.duration_since(*last) < LIFETIME).then(|| counted.clone())
    }

    /// Records an Event that was written; the series that was not repeated for the longest time makes room.
    pub(super) fn record(&mut self, key: String, counted: Counted, now: Instant) {
        if self.0.len() >= CAPACITY && !self.0.contains_key(&key) {
            self.0.retain(|_, (last, _)| now.duration_since(*last) < LIFETIME);
            self.drop_oldest();
        }
        self.0.insert(key, (now, counted));
    }

    fn drop_oldest(&mut self) {
        if self.0.len() < CAPACITY {
            return;
        }
        let oldest = self.0.iter().min_by_key(|(_, (last, _))| *last);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.0.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(n: usize) -> Counted {
        Counted::first(format!("event-{n}"))
    }

    #[test]
    fn a_series_lasts_six_minutes_after_its_last_event() {
        let (mut cache, began) = (SeriesCache::default(), Instant::now());
        cache.record("a".to_owned(), first(1), began);
        let later = began + Duration::from_mins(5);
        let repeated = cache.get("a", later).expect("the series").next();
        assert_eq!(repeated.count, 2);
        cache.record("a".to_owned(), repeated.clone(), later);
        assert_eq!(cache.get("a", began + LIFETIME), Some(repeated));
        assert_eq!(cache.get("a", later + LIFETIME), None);
        assert_eq!(cache.get("b", later), None);
    }

    #[test]
    fn the_number_of_series_is_bounded_and_the_oldest_makes_room() {
        let (mut cache, began) = (SeriesCache::default(), Instant::now());
        for n in 0..CAPACITY * 2 {
            let at = began + Duration::from_millis(u64::try_from(n).unwrap());
            cache.record(n.to_string(), first(n), at);
            assert!(cache.0.len() <= CAPACITY);
        }
        let now = began + Duration::from_secs(10);
        assert_eq!(cache.get(&(CAPACITY - 1).to_string(), now), None);
        let kept = cache.get(&CAPACITY.to_string(), now);
        assert_eq!(kept, Some(first(CAPACITY)));
        cache.record("late".to_owned(), first(0), now + LIFETIME);
        assert_eq!(cache.0.len(), 1, "ended series make room first");
    }
}
