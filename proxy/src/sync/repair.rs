//! Repair of rules that another process changed: polls the nftables generation of every pod that has rules; a pod with another one gets an
//! attempt, which reads and repairs its rules.
//!
//! Reads only. Nothing is kept open in a pod between two rounds. A poll takes some ten microseconds, unless another process runs a long
//! transaction in the pod's namespace: that blocks one thread, and the next one polls the other pods.

pub(super) mod poll_interval;

use crate::netlink::generation;
use crate::netns::spawn_tour;
use process::error_chain;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::debug;

/// Interval of checks whether a round is due or the running one is blocked.
const TICK: Duration = Duration::from_secs(1);

/// Namespace to poll.
pub(super) struct Target {
    pub(super) uid: String,
    pub(super) netns: PathBuf,
    /// Generation after our last write.
    pub(super) known: u32,
    /// Kept during the poll.
    pub(super) polling: Arc<()>,
}

/// Event of a poll.
#[derive(Debug)]
pub(super) enum PollEvent {
    /// The rules of this pod have another generation than `known`.
    Changed { uid: String, known: u32 },
    /// A thread found the queue empty; the time since its start.
    Ended(Duration),
    /// Time to begin a round, or to start another thread if the running one is blocked.
    Tick,
}

/// Running round, and the time of the next one.
pub(super) struct RulesetPoll {
    /// Namespaces that are not polled yet.
    waiting: Arc<Mutex<VecDeque<Target>>>,
    events: mpsc::UnboundedReceiver<PollEvent>,
    sender: mpsc::UnboundedSender<PollEvent>,
    tick: Instant,
    due: Instant,
}

impl RulesetPoll {
    pub(super) fn new() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            waiting: Arc::default(),
            events,
            sender,
            tick: Instant::now() + TICK,
            due: Instant::now(),
        }
    }

    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> PollEvent {
        tokio::select! {
            Some(event) = self.events.recv() => event,
            () = tokio::time::sleep_until(self.tick.into()) => PollEvent::Tick,
        }
    }

    /// Returns true when the caller has to begin a round; continues the running one otherwise.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        self.tick = now + TICK;
        let is_due = self.is_due(now);
        if !is_due {
            self.poll_next();
        }
        is_due
    }

    /// Returns true when the round is complete and the next one is due.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.due && lock(&self.waiting).is_empty()
    }

    pub(super) fn begin(&mut self, targets: impl IntoIterator<Item = Target>, now: Instant) {
        lock(&self.waiting).extend(targets);
        self.due = now + poll_interval::LONGEST;
        self.poll_next();
    }

    /// Threads of earlier rounds may end late; they do not delay the next round.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        self.due = self.due.min(now + poll_interval::pause(took));
    }

    /// Starts another thread for the namespaces that are not polled yet, if there are any.
    fn poll_next(&self) {
        if lock(&self.waiting).is_empty() {
            return;
        }
        let (waiting, sender, began) = (Arc::clone(&self.waiting), self.sender.clone(), Instant::now());
        let ended = Ended(self.sender.clone(), began);
        let next = move || {
            let target = lock(&waiting).pop_front()?;
            Some((target.netns.clone(), target))
        };
        let poll = move |target: Target| {
            let _ = &ended;
            if let Ok(Some(now)) = generation::poll()
                && now != target.known
            {
                let Target {
                    uid, known, polling, ..
                } = target;
                // The receiver is dropped at shutdown.
                let _ = sender.send(PollEvent::Changed { uid, known });
                drop(polling);
            }
        };
        // Retried at the next tick.
        if let Err(error) = spawn_tour(next, poll) {
            debug!(error = %error_chain(&error), "Failed to poll for changes of rules");
        }
    }
}

/// Reports the end of a thread, also after a panic.
struct Ended(mpsc::UnboundedSender<PollEvent>, Instant);

impl Drop for Ended {
    fn drop(&mut self) {
        // The receiver is dropped at shutdown.
        let _ = self.0.send(PollEvent::Ended(self.1.elapsed()));
    }
}

fn lock(waiting: &Mutex<VecDeque<Target>>) -> MutexGuard<'_, VecDeque<Target>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
