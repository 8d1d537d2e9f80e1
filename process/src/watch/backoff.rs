//! How long a watch waits after an error.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::watcher::{self, Error, Event};
use std::time::Duration;
use tokio::time::Instant;

/// What is decided from a watch must not be stale for long after an outage.
const LONGEST: Duration = Duration::from_secs(5);
/// What the API server does not have, or does not let us see, will hardly be there in a moment.
const LONGEST_UNSERVED: Duration = Duration::from_mins(5);
/// So long without an error, the next one is the first. A quiet watch that works again yields no event that would say so.
const QUIET: Duration = Duration::from_mins(2);

/// Whether a process can do without a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It cannot: also a rejection is met with another attempt within five seconds.
    Required,
    /// It can: a kind that is not served, or not allowed, is asked for ever more rarely, at least every five minutes.
    Optional,
}

/// The pauses of one watch: from 0.8 s, doubled, with jitter, as client-go's.
pub(super) struct WatchBackoff {
    presence: Presence,
    growing: ExponentialBackoff,
    /// When the last pause ended.
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

    /// How long to wait after what a watch yielded.
    pub(super) fn after<K>(&mut self, event: &watcher::Result<Event<K>>, now: Instant) -> Option<Duration> {
        match event {
            Err(error) => Some(self.after_error(error, now)),
            // No answer yet, or the first page of a list that may fail again.
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

/// The API server does not have the kind, or does not let us see it.
pub fn is_not_served(error: &Error) -> bool {
    let (Error::InitialListFailed(kube::Error::Api(status))
    | Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    // By the code: of a group that is not there the API server answers in plain text, without a reason.
    matches!(status.code, 403 | 404)
}
