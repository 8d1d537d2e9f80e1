//! Deduplicates the Events of a pod and limits their rate.
//!
//! Pure.

use crate::report::pod_events::PodEvent;
use std::time::{Duration, Instant};

/// Time between two Events on one pod, on average: a condition that flaps would fill the API server.
pub(crate) const PAUSE: Duration = Duration::from_secs(30);

/// Events that may follow each other without a pause.
const BURST: u32 = 3;

/// State of the Events of one pod.
#[derive(Debug, Default)]
pub(crate) struct EventThrottle {
    current: Option<PodEvent>,
    last: Option<Sent>,
    /// When the rate of one Event per pause allows for all that were sent (GCRA).
    paid_until: Option<Instant>,
}

#[derive(Debug)]
struct Sent {
    event: PodEvent,
    /// The event has applied ever since it was sent.
    is_current: bool,
}

impl EventThrottle {
    /// Returns the event that applies now.
    pub(crate) fn current(&self) -> Option<&PodEvent> {
        self.current.as_ref()
    }

    /// Sets the event that applies now and sends it when it is due. `send` returns false when the queue is full.
    pub(crate) fn publish(
        &mut self,
        event: Option<PodEvent>,
        at: Instant,
        send: impl FnOnce(&PodEvent) -> bool,
    ) {
        self.current = event;
        if let Some(last) = &mut self.last {
            last.is_current &= self.current.as_ref() == Some(&last.event);
        }
        let Some(now) = self.current.as_ref().filter(|_| !self.is_published()) else {
            return;
        };
        let paid_until = self.paid_until.unwrap_or(at).max(at);
        if paid_until <= at + PAUSE * (BURST - 1) && send(now) {
            self.paid_until = Some(paid_until + PAUSE);
            self.last = Some(Sent {
                event: now.clone(),
                is_current: true,
            });
        }
    }

    /// Returns true when the current event was sent. Otherwise retry after [`PAUSE`].
    pub(crate) fn is_published(&self) -> bool {
        self.current.is_none() || self.last.as_ref().is_some_and(|last| last.is_current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(note: &str) -> PodEvent {
        PodEvent {
            reason: "ServiceRulesIncomplete",
            note: note.to_owned(),
        }
    }

    /// Counts the events sent when one is published per second.
    fn sent(events: impl IntoIterator<Item = Option<PodEvent>>) -> usize {
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
        assert_eq!(sent(vec![Some(event("a")); 100]), 1);
        let flapping = |n| (n % 2 == 0).then(|| event("a"));
        assert_eq!(sent((0..100).map(flapping)), 6);
        let two = |n| Some(event(if n % 2 == 0 { "a" } else { "b" }));
        assert_eq!(sent((0..100).map(two)), 6);
    }

    #[test]
    fn an_event_that_could_not_be_sent_is_still_pending() {
        let (mut throttle, now) = (EventThrottle::default(), Instant::now());
        throttle.publish(Some(event("a")), now, |_| false);
        assert!(!throttle.is_published() && throttle.current().is_some());
        throttle.publish(Some(event("a")), now, |_| true);
        assert!(throttle.is_published());
        for text in ["b", "c", "d"] {
            throttle.publish(Some(event(text)), now, |_| true);
        }
        assert!(!throttle.is_published(), "too many at once");
        throttle.publish(Some(event("d")), now + PAUSE, |_| true);
        assert!(throttle.is_published());
        throttle.publish(Some(event("e")), now + PAUSE, |_| true);
        assert!(!throttle.is_published());
        throttle.publish(None, now, |_| true);
        assert!(throttle.is_published());
    }
}
