//! Telling the owners of Services: Events and the Accepted condition, behind all slice writes.
//!
//! An endpoint is never late because of a word about it: telling has a queue of its own, and its turn when no Service is due.

use super::told::TellTale;
use crate::apply::{self, Message, Writer, chain};
use crate::condition::stands;
use crate::index::Index;
use crate::metrics::{Metrics, Told};
use crate::notice::Notice;
use crate::objects::ObjectKey;
use crate::queue::{Outcome, Queue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::HashMap;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

/// Owners who are told something at once.
const MAX_TELLS: usize = 8;

/// What the owner of a Service should know now.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// UID of the Service; none when it is not ours.
    pub uid: Option<String>,
    /// Everything there is to tell.
    pub notices: Vec<Notice>,
    /// The condition, when it differs from what the Service has.
    pub condition: Option<Condition>,
}

pub(super) struct Telling {
    key: ObjectKey,
    verdict: Verdict,
    result: Result<(), apply::Error>,
}

/// Who is to be told what.
pub(super) struct Teller {
    writer: Writer,
    metrics: Metrics,
    told: TellTale,
    queue: Queue,
    verdicts: HashMap<ObjectKey, Verdict>,
    running: JoinSet<Telling>,
}

impl Teller {
    pub(super) fn new(writer: Writer, metrics: Metrics) -> Self {
        Self {
            writer,
            metrics,
            told: TellTale::default(),
            queue: Queue::default(),
            verdicts: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// A decision was made; whatever was still to be told before it is out of date.
    pub(super) fn decided(&mut self, key: &ObjectKey, verdict: Verdict, now: Instant) {
        if self.is_said(key, &verdict) {
            self.verdicts.remove(key);
            self.told.remember(key, verdict.uid, verdict.notices);
        } else {
            self.verdicts.insert(key.clone(), verdict);
            self.queue.wake(key.clone(), now);
        }
    }

    fn is_said(&self, key: &ObjectKey, verdict: &Verdict) -> bool {
        match &verdict.uid {
            Some(uid) => {
                verdict.condition.is_none()
                    && self.told.news(key, Some(uid), &verdict.notices, false).is_empty()
            }
            None => self.told.uid(key).is_none(),
        }
    }

    /// Starts what is due.
    pub(super) fn start(&mut self, index: &Index) {
        while self.running.len() < MAX_TELLS {
            let Some(key) = self.queue.pop(Instant::now()) else {
                break;
            };
            match self.verdicts.remove(&key) {
                Some(verdict) => self.tell(index, key, verdict),
                None => self.queue.done(&key, Outcome::Unchanged, Instant::now(), 0.0),
            }
        }
    }

    fn tell(&mut self, index: &Index, key: ObjectKey, verdict: Verdict) {
        let service = index
            .services
            .get(&key)
            .filter(|_| verdict.uid.is_some())
            .cloned();
        let condition = verdict.condition.clone();
        let condition =
            condition.filter(|c| service.as_ref().is_some_and(|entry| !stands(&entry.service, c)));
        let notices = self.told.news(
            &key,
            verdict.uid.as_deref(),
            &verdict.notices,
            condition.is_some(),
        );
        for notice in &notices {
            let reason = notice.reason.as_str();
            warn!(service = %key, reason, "{}", notice.text());
            self.metrics.notices.get_or_create(&Told { reason }).inc();
        }
        let retract = if verdict.uid.is_none() {
            self.told.uid(&key)
        } else {
            None
        };
        let message = Message {
            key: key.clone(),
            service,
            notices,
            condition,
            retract,
        };
        let writer = self.writer.clone();
        self.running.spawn(async move {
            Telling {
                key,
                verdict,
                result: writer.tell(message).await,
            }
        });
    }

    /// The next one that ended; none at once when nothing is under way.
    pub(super) async fn join_next(&mut self) -> Option<Result<Telling, JoinError>> {
        self.running.join_next().await
    }

    /// Takes the result in.
    pub(super) fn finish(&mut self, telling: Telling, jitter: f64) {
        let Telling { key, verdict, result } = telling;
        let outcome = match result {
            Ok(()) => {
                self.told.remember(&key, verdict.uid, verdict.notices);
                Outcome::Wrote
            }
            Err(error) => {
                warn!(service = %key, error = %chain(&error), "Owner could not be told, trying again");
                self.verdicts.entry(key.clone()).or_insert(verdict);
                Outcome::Failed {
                    retry_after: error.retry_after(),
                }
            }
        };
        self.queue.done(&key, outcome, Instant::now(), jitter);
    }

    /// When something is due; none while no more can be started.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.next_due().filter(|_| self.running.len() < MAX_TELLS)
    }
}
