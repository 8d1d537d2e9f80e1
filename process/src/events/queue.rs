//! A bounded queue of Events and the task that writes them, for callers that must not wait for the API server.
//!
//! Writes: Events, in the order in which they were sent.

use super::event::Event;
use super::publisher::{Error, Publisher};
use crate::error_chain;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Events that wait for the API server: with their texts at most 1 MB.
const QUEUE: usize = 256;

/// Attempts to write one Event, as in client-go.
const MAX_ATTEMPTS: u32 = 12;

/// Pause after the first failed attempt.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Time for the Events that wait when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Queues Events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSender(mpsc::Sender<Event>);

/// Writes queued Events to the API server.
#[derive(Debug)]
pub struct EventWriter {
    queue: mpsc::Receiver<Event>,
    first_backoff: Duration,
    drain: Duration,
}

/// Creates the queue.
pub fn channel() -> (EventSender, EventWriter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = EventWriter {
        queue: receiver,
        first_backoff: FIRST_BACKOFF,
        drain: DRAIN,
    };
    (EventSender(sender), writer)
}

impl EventSender {
    /// Queues an Event; returns false when the queue is full.
    pub fn send(&self, event: Event) -> bool {
        self.0.try_send(event).is_ok()
    }
}

impl EventWriter {
    /// Writes Events until every sender is gone and the queue is empty.
    pub async fn run(mut self, publisher: Publisher) {
        let mut log = FailureLog::default();
        while let Some(event) = self.queue.recv().await {
            self.write(&publisher, &event, &mut log).await;
        }
    }

    /// Writes Events beside `work`, which holds the senders, and for 5 s after it.
    pub async fn run_beside<T>(self, publisher: Publisher, work: impl Future<Output = T>) -> T {
        let drain = self.drain;
        let mut writing = pin!(self.run(publisher));
        let mut work = pin!(work);
        tokio::select! {
            result = &mut work => {
                if tokio::time::timeout(drain, writing).await.is_err() {
                    debug!("Dropped the Events that were not written in time");
                }
                result
            }
            () = &mut writing => work.await,
        }
    }

    async fn write(&self, publisher: &Publisher, event: &Event, log: &mut FailureLog) {
        for attempt in 1.. {
            let Err(error) = publisher.publish(event).await else {
                log.succeeded();
                return;
            };
            log.failed(event, &error);
            let Some(pause) = retry_after(&error, attempt, self.first_backoff) else {
                return;
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Returns the pause before the next attempt; `None` if there is none. Only an outage, which every Event meets, holds up the queue, and for
/// minutes.
fn retry_after(error: &Error, attempt: u32, first: Duration) -> Option<Duration> {
    if !error.is_outage() || attempt >= MAX_ATTEMPTS {
        return None;
    }
    let pause = first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    Some(pause.min(MAX_BACKOFF))
}

/// The last failure that was logged: it is not logged again before a success or another one.
#[derive(Debug, Default)]
struct FailureLog(Option<String>);

impl FailureLog {
    fn succeeded(&mut self) {
        self.0 = None;
    }

    fn failed(&mut self, event: &Event, error: &Error) {
        if self.is_new(error) {
            let object = event.regarding.name.as_deref().unwrap_or_default();
            warn!(namespace = event.namespace(), object, reason = event.reason, error = %error_chain(error), "Failed to publish an Event");
        }
    }

    fn is_new(&mut self, error: &Error) -> bool {
        let text = error.to_string();
        if self.0.as_ref() == Some(&text) {
            return false;
        }
        self.0 = Some(text);
        true
    }
}

#[cfg(test)]
mod tests;
