//! The Events of one object that are due.
//!
//! Pure: the clock is an argument. The state belongs to the object's own state and ends with it, so there is no map that could grow.

use super::rate::{Limit, Rate};
use std::time::{Duration, Instant};

/// Time between two Events on one object, on average: a condition that flaps would fill the API server.
pub const PAUSE: Duration = Duration::from_secs(30);

/// Events that may follow each other without a pause.
const BURST: u32 = 3;

const LIMIT: Limit = Limit {
    pause: PAUSE,
    burst: BURST,
};

/// An Event, or what it is made of.
pub trait Repeats {
    /// Returns true if it reports what `earlier` reported.
    fn repeats(&self, earlier: &Self) -> bool;
}

/// Events of one object that were published and still apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<E>(Vec<E>);

impl<E> Default for Published<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E> From<Vec<E>> for Published<E> {
    fn from(events: Vec<E>) -> Self {
        Self(events)
    }
}

impl<E> Extend<E> for Published<E> {
    fn extend<I: IntoIterator<Item = E>>(&mut self, events: I) {
        self.0.extend(events);
    }
}

impl<E: Repeats> Published<E> {
    /// Returns true if `event` has applied ever since it was published.
    pub fn contains(&self, event: &E) -> bool {
        self.0.iter().any(|published| event.repeats(published))
    }

    /// Forgets the Events that no longer apply: they are published again when they come back.
    fn keep(&mut self, current: Option<&E>) {
        self.0
            .retain(|published| current.is_some_and(|event| event.repeats(published)));
    }
}

/// State of the Events of one object, of which one at a time applies.
#[derive(Debug)]
pub struct EventThrottle<E> {
    current: Option<E>,
    published: Published<E>,
    rate: Rate,
}

impl<E> Default for EventThrottle<E> {
    fn default() -> Self {
        Self {
            current: None,
            published: Published::default(),
            rate: Rate::default(),
        }
    }
}

impl<E: Repeats + Clone> EventThrottle<E> {
    /// Returns the event that applies now.
    pub fn current(&self) -> Option<&E> {
        self.current.as_ref()
    }

    /// Sets the event that applies now and sends it when it is due. `send` returns false when the queue is full.
    pub fn publish(&mut self, event: Option<E>, at: Instant, send: impl FnOnce(&E) -> bool) {
        self.current = event;
        self.published.keep(self.current.as_ref());
        let Some(now) = self.current.as_ref().filter(|_| !self.is_published()) else {
            return;
        };
        if self.rate.allows(LIMIT, at) && send(now) {
            self.rate.count(LIMIT, at);
            self.published.extend([now.clone()]);
        }
    }

    /// Returns true when the current event was sent. Otherwise retry after [`PAUSE`].
    pub fn is_published(&self) -> bool {
        self.current
            .as_ref()
            .is_none_or(|event| self.published.contains(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Repeats for &str {
        fn repeats(&self, earlier: &Self) -> bool {
            self == earlier
        }
    }

    /// Counts the events sent when one is published per second.
    fn sent(events: impl IntoIterator<Item = Option<&'static str>>) -> usize {
        let (mut throttle, mut sent, began) = (EventThrottle::default(), 0, Instant::now());
        for (second, event) in (0..).zip(events) {
            throttle.publish(event, began + Duration::from_secs(second), |_| {
                sent += 1;
                true
            });
        }
        sent
    }

    #[test]
    fn an_unchanged_event_is_published_once_and_flapping_events_are_limited() {
        assert_eq!(sent([Some("a"); 100]), 1);
        let flapping = |n| (n % 2 == 0).then_some("a");
        assert_eq!(sent((0..100).map(flapping)), 6);
        let two = |n| Some(if n % 2 == 0 { "a" } else { "b" });
        assert_eq!(sent((0..100).map(two)), 6);
    }

    #[test]
    fn an_event_that_could_not_be_sent_is_still_pending() {
        let (mut throttle, now) = (EventThrottle::default(), Instant::now());
        throttle.publish(Some("a"), now, |_| false);
        assert!(!throttle.is_published() && throttle.current().is_some());
        throttle.publish(Some("a"), now, |_| true);
        assert!(throttle.is_published());
        for text in ["b", "c", "d"] {
            throttle.publish(Some(text), now, |_| true);
        }
        assert!(!throttle.is_published(), "too many at once");
        throttle.publish(Some("d"), now + PAUSE, |_| true);
        assert!(throttle.is_published());
        throttle.publish(Some("e"), now + PAUSE, |_| true);
        assert!(!throttle.is_published());
        throttle.publish(None, now, |_| true);
        assert!(throttle.is_published());
    }
}
