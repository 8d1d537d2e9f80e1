//! What a pod is told: once, until something else is to be said, and not more often than anybody reads.
//!
//! Pure.

use crate::report::pod_events::Notice;
use std::time::{Duration, Instant};

/// Time between two Events on one pod, on average: what flaps would fill the API server.
pub(crate) const PAUSE: Duration = Duration::from_secs(30);

/// Events that may follow each other at once.
const AT_ONCE: u32 = 3;

/// What there is to say to one pod, and what was.
#[derive(Debug, Default)]
pub(crate) struct Told {
    now: Option<Notice>,
    last: Option<Sent>,
    /// When all that was sent is paid for, at one for each pause.
    even: Option<Instant>,
}

#[derive(Debug)]
struct Sent {
    notice: Notice,
    /// Whether there was this to say ever since.
    stands: bool,
}

impl Told {
    /// What there is to say.
    pub(crate) fn now(&self) -> Option<&Notice> {
        self.now.as_ref()
    }

    /// From now on there is this to say. `send` sends it, or says that it could not.
    pub(crate) fn say(&mut self, notice: Option<Notice>, at: Instant, send: impl FnOnce(&Notice) -> bool) {
        self.now = notice;
        if let Some(last) = &mut self.last {
            last.stands &= self.now.as_ref() == Some(&last.notice);
        }
        let Some(now) = self.now.as_ref().filter(|_| !self.is_said()) else {
            return;
        };
        let even = self.even.unwrap_or(at).max(at);
        if even <= at + PAUSE * (AT_ONCE - 1) && send(now) {
            self.even = Some(even + PAUSE);
            self.last = Some(Sent {
                notice: now.clone(),
                stands: true,
            });
        }
    }

    /// Whether all that there is to say has been said. If not it is to be tried again after [`PAUSE`].
    pub(crate) fn is_said(&self) -> bool {
        self.now.is_none() || self.last.as_ref().is_some_and(|last| last.stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(note: &str) -> Notice {
        Notice {
            reason: "ServiceRulesIncomplete",
            note: note.to_owned(),
        }
    }

    /// How many are sent of those said a second apart.
    fn sent(said: impl IntoIterator<Item = Option<Notice>>) -> usize {
        let (mut told, mut sent, began) = (Told::default(), 0, Instant::now());
        for (second, notice) in (0..).zip(said) {
            told.say(notice, began + Duration::from_secs(second), |_| {
                sent += 1;
                true
            });
        }
        sent
    }

    #[test]
    fn the_same_is_not_said_again_and_what_flaps_not_often() {
        assert_eq!(sent(vec![Some(notice("a")); 100]), 1);
        let flapping = |n| (n % 2 == 0).then(|| notice("a"));
        assert_eq!(sent((0..100).map(flapping)), 6);
        let two = |n| Some(notice(if n % 2 == 0 { "a" } else { "b" }));
        assert_eq!(sent((0..100).map(two)), 6);
    }

    #[test]
    fn what_could_not_be_sent_is_still_to_be_said() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.say(Some(notice("a")), now, |_| false);
        assert!(!told.is_said() && told.now().is_some());
        told.say(Some(notice("a")), now, |_| true);
        assert!(told.is_said());
        for text in ["b", "c", "d"] {
            told.say(Some(notice(text)), now, |_| true);
        }
        assert!(!told.is_said(), "too many at once");
        told.say(Some(notice("d")), now + PAUSE, |_| true);
        assert!(told.is_said());
        told.say(Some(notice("e")), now + PAUSE, |_| true);
        assert!(!told.is_said());
        told.say(None, now, |_| true);
        assert!(told.is_said());
    }
}
