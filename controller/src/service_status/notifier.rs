//! Telling the owners of Services: Events and the Accepted condition, behind all slice writes.
//!
//! An endpoint is never late because of a word about it: telling has a queue of its own, and its turn when no Service is due.

use super::event_dedup::TellTale;
use crate::apply::{self, Message, Writer, chain};
use crate::index::Index;
use crate::metrics::{Metrics, Told};
use crate::objects::ObjectKey;
use crate::service_status::condition::stands;
use crate::service_status::problem::Notice;
use crate::work_queue::{Outcome, Queue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::HashMap;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

/// Owners who are told something at once.
const MAX_TELLS: usize = 8;

/// What the owner of a Service should know now.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// UID of the Service; none when it is not ours.
    pub uid: Option<String>,
    /// UID of a Service that was ours and has left slices behind.
    pub former_uid: Option<String>,
    /// Everything there is to tell.
    pub notices: Vec<Notice>,
    /// The condition, when it differs from what the Service has.
    pub condition: Option<Condition>,
}

pub(crate) struct Telling {
    key: ObjectKey,
    verdict: Verdict,
    /// What was told before the first failure.
    told: Vec<Notice>,
    result: Result<(), apply::Error>,
}

/// Who is to be told what.
pub(crate) struct Teller {
    writer: Writer,
    metrics: Metrics,
    told: TellTale,
    queue: Queue,
    verdicts: HashMap<ObjectKey, Verdict>,
    /// Former Services whose condition is off while their slices are still going.
    retracted: HashMap<ObjectKey, String>,
    running: JoinSet<Telling>,
}

impl Teller {
    pub(crate) fn new(writer: Writer, metrics: Metrics) -> Self {
        Self {
            writer,
            metrics,
            told: TellTale::default(),
            queue: Queue::default(),
            verdicts: HashMap::new(),
            retracted: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// A decision was made; whatever was still to be told before it is out of date.
    pub(crate) fn decided(&mut self, key: &ObjectKey, verdict: Verdict, now: Instant) {
        if verdict.former_uid.is_none() {
            self.retracted.remove(key);
        }
        let is_retracting = |waiting: &Verdict| waiting.uid.is_none() && waiting.former_uid.is_some();
        if verdict.uid.is_none() && self.verdicts.get(key).is_some_and(is_retracting) {
            // The slices that told of the former Service may be gone by now, its condition is not.
        } else if self.is_said(key, &verdict) {
            self.verdicts.remove(key);
            self.told.remember(key, verdict.uid, verdict.notices);
            self.forget_if_not_ours(key);
        } else {
            self.verdicts.insert(key.clone(), verdict);
            self.queue.wake(key.clone(), now);
        }
    }

    fn is_said(&self, key: &ObjectKey, verdict: &Verdict) -> bool {
        let Some(uid) = &verdict.uid else {
            let former = verdict.former_uid.as_ref();
            let is_retracted = former.is_none() || self.retracted.get(key) == former;
            return self.told.uid(key).is_none() && is_retracted;
        };
        verdict.condition.is_none() && self.told.news(key, Some(uid), &verdict.notices, false).is_empty()
    }

    /// Names come and go for as long as the process runs.
    fn forget_if_not_ours(&mut self, key: &ObjectKey) {
        if self.told.uid(key).is_none() && !self.verdicts.contains_key(key) {
            self.queue.forget(key, Instant::now());
        }
    }

    /// Starts what is due.
    pub(crate) fn start(&mut self, index: &Index) {
        while self.running.len() < MAX_TELLS {
            let Some(key) = self.queue.pop(Instant::now()) else {
                break;
            };
            if let Some(verdict) = self.verdicts.remove(&key) {
                self.tell(index, key, verdict);
            } else {
                self.queue.done(&key, Outcome::Unchanged, Instant::now(), 0.0);
                self.forget_if_not_ours(&key);
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
            self.told.uid(&key).or_else(|| verdict.former_uid.clone())
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
            let (told, result) = writer.tell(message).await;
            Telling {
                key,
                verdict,
                told,
                result,
            }
        });
    }

    /// The next one that ended; none at once when nothing is under way.
    pub(crate) async fn join_next(&mut self) -> Option<Result<Telling, JoinError>> {
        self.running.join_next().await
    }

    /// Takes the result in.
    pub(crate) fn finish(&mut self, telling: Telling, jitter: f64) {
        let Telling {
            key,
            verdict,
            told,
            result,
        } = telling;
        let outcome = match result {
            Ok(()) => {
                self.remember(&key, verdict);
                Outcome::Wrote
            }
            Err(error) => {
                warn!(service = %key, error = %chain(&error), "Owner could not be told, trying again");
                // An Event that was written is not written again because the condition was not.
                self.told.remember_some(&key, verdict.uid.as_deref(), told);
                self.verdicts.entry(key.clone()).or_insert(verdict);
                Outcome::Failed {
                    retry_after: error.retry_after(),
                }
            }
        };
        self.queue.done(&key, outcome, Instant::now(), jitter);
        self.forget_if_not_ours(&key);
    }

    fn remember(&mut self, key: &ObjectKey, verdict: Verdict) {
        if verdict.uid.is_none()
            && let Some(former) = verdict.former_uid
        {
            self.retracted.insert(key.clone(), former);
        }
        self.told.remember(key, verdict.uid, verdict.notices);
    }

    /// When something is due; none while no more can be started.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.next_due().filter(|_| self.running.len() < MAX_TELLS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work_queue::MAX_BACKOFF;
    use kube::{Client, Config};
    use prometheus_client::registry::Registry;

    /// Whose writer reaches nobody; results are made up.
    fn teller() -> Teller {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let writer = Writer::new(Client::try_from(config).unwrap(), "test");
        Teller::new(writer, Metrics::register(&mut Registry::default()))
    }

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "web")
    }

    fn verdict(uid: Option<&str>, former_uid: Option<&str>) -> Verdict {
        Verdict {
            uid: uid.map(str::to_owned),
            former_uid: former_uid.map(str::to_owned),
            notices: Vec::new(),
            condition: None,
        }
    }

    /// Takes what is due and says that it was told.
    fn told(teller: &mut Teller, result: Result<(), apply::Error>) {
        let key = teller
            .queue
            .pop(Instant::now() + MAX_BACKOFF * 2)
            .expect("something is due");
        let verdict = teller.verdicts.remove(&key).expect("a verdict");
        let telling = Telling {
            key,
            verdict,
            told: Vec::new(),
            result,
        };
        teller.finish(telling, 0.0);
    }

    /// Once the token of the last write is back.
    fn is_forgotten(teller: &mut Teller) -> bool {
        teller.queue.pop(Instant::now() + MAX_BACKOFF).is_none() && !teller.queue.knows(&key())
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_forgotten() {
        let mut teller = teller();
        let now = Instant::now();
        let mut wanted = verdict(Some("u1"), None);
        wanted.condition = Some(crate::service_status::condition::accepted(
            &crate::validate::Acceptance::Rejected,
            crate::service_status::condition::Source::Pods,
            &[],
            None,
        ));
        teller.decided(&key(), wanted, now);
        told(&mut teller, Ok(()));
        assert!(teller.queue.knows(&key()));
        teller.decided(&key(), verdict(None, None), now);
        told(&mut teller, Ok(()));
        assert!(is_forgotten(&mut teller));
    }

    /// It lost its label while no controller ran: only its slices tell of it, and they go sooner than its condition.
    #[tokio::test]
    async fn the_condition_of_a_former_service_is_taken_off_once_however_long_it_takes() {
        let mut teller = teller();
        let now = Instant::now();
        teller.decided(&key(), verdict(None, Some("u1")), now);
        told(&mut teller, Err(apply::Error::Timeout));
        teller.decided(&key(), verdict(None, None), now);
        assert!(teller.verdicts.contains_key(&key()), "still to be taken off");
        told(&mut teller, Ok(()));
        assert!(teller.verdicts.is_empty());
    }

    #[tokio::test]
    async fn slices_that_go_one_by_one_do_not_repeat_it() {
        let mut teller = teller();
        let now = Instant::now();
        teller.decided(&key(), verdict(None, Some("u1")), now);
        told(&mut teller, Ok(()));
        teller.decided(&key(), verdict(None, Some("u1")), now);
        assert!(teller.verdicts.is_empty());
        teller.decided(&key(), verdict(None, None), now);
        assert!(teller.retracted.is_empty() && is_forgotten(&mut teller));
    }
}
