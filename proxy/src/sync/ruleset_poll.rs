//! Rounds through the pods that have rules: has anybody changed nftables rules there since we wrote?
//!
//! Reads only. Nothing is kept open in a pod between two rounds. To ask takes some ten microseconds, unless somebody makes a long transaction in the
//! pod's namespace: that keeps one thread waiting, and the next one asks the other pods.

use super::attempt::Place;
use super::kernel_events::SETTLE;
use super::pod_state::Pods;
use super::poll_interval;
use crate::netlink::generation;
use crate::netns::spawn_tour;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::debug;

/// How often it is seen whether a round is due, or one that is under way does not get on.
const TICK: Duration = Duration::from_secs(1);

/// A namespace to be asked.
pub(super) struct Target {
    pub(super) uid: String,
    pub(super) netns: PathBuf,
    /// The generation that we left.
    pub(super) known: u32,
    /// Held as long as it is being asked.
    pub(super) _asking: Arc<()>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Answer {
    /// Rules of this pod have another generation than this.
    Changed { uid: String, known: u32 },
    /// A thread found the queue empty, and began so long ago.
    Ended(Duration),
    /// Time to begin a round, or to help one that does not get on.
    Tick,
}

/// The round under way, and when the next one is due.
pub(super) struct Rounds {
    /// Who has not been asked yet.
    waiting: Arc<Mutex<VecDeque<Target>>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    sender: mpsc::UnboundedSender<Answer>,
    tick: Instant,
    due: Instant,
}

impl Rounds {
    pub(super) fn new() -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            waiting: Arc::default(),
            answers,
            sender,
            tick: Instant::now() + TICK,
            due: Instant::now(),
        }
    }

    /// Waits for an answer.
    pub(super) async fn next(&mut self) -> Answer {
        tokio::select! {
            Some(answer) = self.answers.recv() => answer,
            () = tokio::time::sleep_until(self.tick.into()) => Answer::Tick,
        }
    }

    /// Whether all have been asked and it is time to do so again.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.due && lock(&self.waiting).is_empty()
    }

    fn begin(&mut self, targets: impl IntoIterator<Item = Target>, now: Instant) {
        lock(&self.waiting).extend(targets);
        self.due = now + poll_interval::LONGEST;
        self.go_on();
    }

    /// Threads of earlier rounds may end late: they put nothing off.
    fn ended(&mut self, took: Duration, now: Instant) {
        self.due = self.due.min(now + poll_interval::pause(took));
    }

    /// Has one more thread ask those that wait, if there are any.
    fn go_on(&self) {
        if lock(&self.waiting).is_empty() {
            return;
        }
        let (waiting, sender, began) = (Arc::clone(&self.waiting), self.sender.clone(), Instant::now());
        let ended = Ended(self.sender.clone(), began);
        let next = move || {
            let target = lock(&waiting).pop_front()?;
            Some((target.netns.clone(), target))
        };
        let ask = move |target: Target| {
            let _ = &ended;
            if let Ok(Some(now)) = generation::poll()
                && now != target.known
            {
                let Target { uid, known, .. } = target;
                // The process may stop meanwhile.
                let _ = sender.send(Answer::Changed { uid, known });
            }
        };
        // Without a thread there is one more attempt at the next tick.
        if let Err(error) = spawn_tour(next, ask) {
            debug!(%error, "Cannot look for changes of rules");
        }
    }
}

/// Says that a thread ended, however it did.
struct Ended(mpsc::UnboundedSender<Answer>, Instant);

impl Drop for Ended {
    fn drop(&mut self) {
        // The process may stop meanwhile.
        let _ = self.0.send(Answer::Ended(self.1.elapsed()));
    }
}

fn lock(waiting: &Mutex<VecDeque<Target>>) -> MutexGuard<'_, VecDeque<Target>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pods {
    /// Acts on what a round says.
    pub(super) fn answered(&mut self, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Changed { uid, known } => self.rules_changed(&uid, known),
            Answer::Ended(took) => self.rounds.ended(took, now),
            Answer::Tick => {
                self.rounds.tick = now + TICK;
                if self.rounds.is_due(now) {
                    let targets: Vec<_> = self.targets().collect();
                    self.rounds.begin(targets, now);
                } else {
                    self.rounds.go_on();
                }
            }
        }
    }

    /// Pods that have rules, and are neither at work nor still being asked.
    fn targets(&self) -> impl Iterator<Item = Target> {
        let pods = self.by_uid.iter().filter(|(_, pod)| pod.has_rules);
        let pods = pods.filter(|_| self.context.backend.is_told_of_changes());
        pods.filter_map(|(uid, pod)| {
            let (netns, known) = pod.place.as_ref()?.generation()?;
            (Arc::strong_count(&pod.asking) == 1).then(|| Target {
                uid: uid.clone(),
                netns,
                known,
                _asking: Arc::clone(&pod.asking),
            })
        })
    }

    /// A pod that is at work, or was since it was asked, knows more than the answer.
    fn rules_changed(&mut self, uid: &str, known: u32) {
        let Some(pod) = self.by_uid.get_mut(uid).filter(|pod| pod.has_rules) else {
            return;
        };
        let place = pod.place.as_ref().and_then(Place::generation);
        if place.is_some_and(|(_, generation)| generation == known) {
            pod.rules_suspect = true;
            let wait = pod.backoff.wait(Instant::now());
            self.look_within(uid, SETTLE.max(wait));
        }
    }
}
