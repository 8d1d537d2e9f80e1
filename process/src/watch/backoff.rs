//! Backoff of a watch after errors.
//!
//! Pure.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::watcher::{self, Error, Event};
use std::time::Duration;
use tokio::time::Instant;

/// Maximum pause: state must not be stale for long after an outage.
const LONGEST: Duration = Duration::from_secs(5);
/// Maximum pause for a kind that the API server does not serve, or does not allow.
const LONGEST_UNSERVED: Duration = Duration::from_mins(5);
/// A time without errors that resets the backoff: a quiet watch that works again yields no event.
const QUIET: Duration = Duration::from_mins(2);

/// Whether a process needs a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does: also a rejected request is retried within five seconds.
    Required,
    /// It does not: requests for a kind that is not served, or not allowed, back off to one in five minutes.
    Optional,
}

/// Exponential backoff of one watch: from 0.8 s, doubled, with jitter, as in client-go.
pub(super) struct WatchBackoff {
    presence: Presence,
    growing: ExponentialBackoff,
    /// End of the last pause.
    last: Option<Instant>,
}

impl WatchBackoff {
    pub(super) fn new(presence: Presence) -> Self {
        Self {
            presence,
            growing: growing(),
            last: None,
        }
    }

    /// Returns the pause after an item of the watch.
    pub(super) fn after<K>(&mut self, event: &watcher::Result<Event<K>>, now: Instant) -> Option<Duration> {
        match event {
            Err(error) => Some(self.after_error(error, now)),
            // No response yet, or the first page of a list that may fail again.
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                self.reset();
                None
            }
        }
    }

    fn reset(&mut self) {
        if self.last.take().is_some() {
            self.growing = growing();
        }
    }

    fn after_error(&mut self, error: &Error, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now > last + QUIET) {
            self.reset();
        }
        let longest = match self.presence {
            Presence::Optional if is_not_served(error) => LONGEST_UNSERVED,
            Presence::Optional | Presence::Required => LONGEST,
        };
        let pause = self.growing.next().unwrap_or(longest).min(longest);
        self.last = Some(now + pause);
        pause
    }
}

fn growing() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(LONGEST_UNSERVED)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Whether the API server does not serve the kind, or does not allow it.
pub(super) fn is_not_served(error: &Error) -> bool {
    let (Error::InitialListFailed(kube::Error::Api(status))
    | Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    // By the code: for an absent group the API server responds with plain text, without a reason.
    matches!(status.code, 403 | 404)
}
