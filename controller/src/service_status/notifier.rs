//! Publishes the status of Services, as Events and the Accepted condition, after all slice writes.
//!
//! A status never delays an endpoint: it has a separate queue, which is served while no Service is due.

use super::event_dedup::PublishedProblems;
use crate::apply::{self, StatusUpdate, Writer};
use crate::index::Index;
use crate::metrics::{EventReason, Metrics};
use crate::service_status::condition::is_current;
use crate::service_status::problem::Problem;
use crate::work_queue::{Outcome, WorkQueue};
use api::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use process::error_chain;
use std::collections::HashMap;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

/// Services whose status is published at the same time.
const MAX_CONCURRENT_PUBLICATIONS: usize = 8;

/// Present status of a Service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceStatus {
    /// UID of the Service; `None` if it is not managed.
    pub uid: Option<String>,
    /// UID of a Service that is no longer managed and still has slices.
    pub former_uid: Option<String>,
    pub problems: Vec<Problem>,
    /// The condition, when it differs from what the Service has.
    pub condition: Option<Condition>,
}

pub(crate) struct Publication {
    key: ObjectName,
    status: ServiceStatus,
    /// Problems whose Events were written before the first failure.
    published: Vec<Problem>,
    result: Result<(), apply::Error>,
}

/// Publishes the status of Services: a queue, and the writes in progress.
pub(crate) struct Notifier {
    writer: Writer,
    metrics: Metrics,
    published: PublishedProblems,
    queue: WorkQueue,
    pending: HashMap<ObjectName, ServiceStatus>,
    /// Former Services whose condition is removed while some of their slices still exist.
    retracted: HashMap<ObjectName, String>,
    running: JoinSet<Publication>,
}

impl Notifier {
    pub(crate) fn new(writer: Writer, metrics: Metrics) -> Self {
        Self {
            writer,
            metrics,
            published: PublishedProblems::default(),
            queue: WorkQueue::default(),
            pending: HashMap::new(),
            retracted: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Takes the status of a new decision; it replaces an earlier one that was not published yet.
    pub(crate) fn set_status(&mut self, key: &ObjectName, status: ServiceStatus, now: Instant) {
        if status.former_uid.is_none() {
            self.retracted.remove(key);
        }
        let is_retracting = |waiting: &ServiceStatus| waiting.uid.is_none() && waiting.former_uid.is_some();
        if status.uid.is_none() && self.pending.get(key).is_some_and(is_retracting) {
            // The slices that named the former Service may be deleted by now; its condition still exists.
        } else if self.is_published(key, &status) {
            self.pending.remove(key);
            self.published.record(key, status.uid, status.problems);
            self.forget_if_unmanaged(key);
        } else {
            self.pending.insert(key.clone(), status);
            self.queue.enqueue(key.clone(), now);
        }
    }

    fn is_published(&self, key: &ObjectName, status: &ServiceStatus) -> bool {
        let Some(uid) = &status.uid else {
            let former = status.former_uid.as_ref();
            let is_retracted = former.is_none() || self.retracted.get(key) == former;
            return self.published.uid(key).is_none() && is_retracted;
        };
        status.condition.is_none()
            && self
                .published
                .unpublished(key, Some(uid), &status.problems, false)
                .is_empty()
    }

    /// Drops the queue entry of a Service that no longer exists, so that memory stays bounded.
    fn forget_if_unmanaged(&mut self, key: &ObjectName) {
        if self.published.uid(key).is_none() && !self.pending.contains_key(key) {
            self.queue.forget(key, Instant::now());
        }
    }

    /// Starts what is due.
    pub(crate) fn start(&mut self, index: &Index) {
        while self.running.len() < MAX_CONCURRENT_PUBLICATIONS {
            let Some(key) = self.queue.pop(Instant::now()) else {
                break;
            };
            if let Some(status) = self.pending.remove(&key) {
                self.publish(index, key, status);
            } else {
                self.queue.done(&key, Outcome::Unchanged, Instant::now(), 0.0);
                self.forget_if_unmanaged(&key);
            }
        }
    }

    fn publish(&mut self, index: &Index, key: ObjectName, status: ServiceStatus) {
        let service = index.services.get(&key).filter(|_| status.uid.is_some()).cloned();
        let condition = status.condition.clone();
        let condition = condition.filter(|c| {
            service
                .as_ref()
                .is_some_and(|entry| !is_current(&entry.service, c))
        });
        let problems =
            self.published
                .unpublished(&key, status.uid.as_deref(), &status.problems, condition.is_some());
        for problem in &problems {
            let reason = problem.reason.as_str();
            warn!(service = %key, reason, "{}", problem.text());
            self.metrics.events.get_or_create(&EventReason { reason }).inc();
        }
        let retract = if status.uid.is_none() {
            self.published.uid(&key).or_else(|| status.former_uid.clone())
        } else {
            None
        };
        let update = StatusUpdate {
            key: key.clone(),
            service,
            problems,
            condition,
            retract,
        };
        let writer = self.writer.clone();
        self.running.spawn(async move {
            let (published, result) = writer.publish(update).await;
            Publication {
                key,
                status,
                published,
                result,
            }
        });
    }

    /// Returns the next finished publication; `None` at once if none is in progress.
    pub(crate) async fn join_next(&mut self) -> Option<Result<Publication, JoinError>> {
        self.running.join_next().await
    }

    /// Handles the result of a publication.
    pub(crate) fn finish(&mut self, publication: Publication, jitter: f64) {
        let Publication {
            key,
            status,
            published,
            result,
        } = publication;
        let outcome = match result {
            Ok(()) => {
                self.record(&key, status);
                Outcome::Wrote
            }
            Err(error) => {
                warn!(service = %key, error = %error_chain(&error), "Failed to publish Service status, retrying");
                // An Event that was written is not written again because the condition was not.
                self.published.record_some(&key, status.uid.as_deref(), published);
                self.pending.entry(key.clone()).or_insert(status);
                Outcome::Failed {
                    retry_after: error.retry_after(),
                }
            }
        };
        self.queue.done(&key, outcome, Instant::now(), jitter);
        self.forget_if_unmanaged(&key);
    }

    fn record(&mut self, key: &ObjectName, status: ServiceStatus) {
        if status.uid.is_none()
            && let Some(former) = status.former_uid
        {
            self.retracted.insert(key.clone(), former);
        }
        self.published.record(key, status.uid, status.problems);
    }

    /// Time at which the next publication is due; `None` while no more can be started.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue
            .next_due()
            .filter(|_| self.running.len() < MAX_CONCURRENT_PUBLICATIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work_queue::MAX_BACKOFF;
    use kube::{Client, Config};
    use prometheus_client::registry::Registry;

    /// A notifier whose writer reaches no API server; the tests supply the results.
    fn notifier() -> Notifier {
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let writer = Writer::new(Client::try_from(config).unwrap(), "test");
        Notifier::new(writer, Metrics::register(&mut Registry::default()))
    }

    fn key() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    fn status(uid: Option<&str>, former_uid: Option<&str>) -> ServiceStatus {
        ServiceStatus {
            uid: uid.map(str::to_owned),
            former_uid: former_uid.map(str::to_owned),
            problems: Vec::new(),
            condition: None,
        }
    }

    /// Takes the status that is due and finishes it with `result`.
    fn finish_due(notifier: &mut Notifier, result: Result<(), apply::Error>) {
        let key = notifier
            .queue
            .pop(Instant::now() + MAX_BACKOFF * 2)
            .expect("something is due");
        let status = notifier.pending.remove(&key).expect("a status");
        let publication = Publication {
            key,
            status,
            published: Vec::new(),
            result,
        };
        notifier.finish(publication, 0.0);
    }

    /// Once the token of the last write is back.
    fn is_forgotten(notifier: &mut Notifier) -> bool {
        notifier.queue.pop(Instant::now() + MAX_BACKOFF).is_none() && !notifier.queue.knows(&key())
    }

    #[tokio::test]
    async fn a_deleted_service_is_forgotten() {
        let mut notifier = notifier();
        let now = Instant::now();
        let mut wanted = status(Some("u1"), None);
        wanted.condition = Some(crate::service_status::condition::accepted(
            &crate::validate::Acceptance::Rejected,
            crate::service_status::condition::Source::Pods,
            &[],
            None,
        ));
        notifier.set_status(&key(), wanted, now);
        finish_due(&mut notifier, Ok(()));
        assert!(notifier.queue.knows(&key()));
        notifier.set_status(&key(), status(None, None), now);
        finish_due(&mut notifier, Ok(()));
        assert!(is_forgotten(&mut notifier));
    }

    /// It lost its label while no controller ran: only its slices name it, and they are deleted before its condition.
    #[tokio::test]
    async fn the_condition_of_a_former_service_is_removed_once_after_any_number_of_retries() {
        let mut notifier = notifier();
        let now = Instant::now();
        notifier.set_status(&key(), status(None, Some("u1")), now);
        finish_due(&mut notifier, Err(apply::Error::Timeout));
        notifier.set_status(&key(), status(None, None), now);
        assert!(notifier.pending.contains_key(&key()), "still to be taken off");
        finish_due(&mut notifier, Ok(()));
        assert!(notifier.pending.is_empty());
    }

    #[tokio::test]
    async fn slices_deleted_one_by_one_do_not_repeat_the_removal() {
        let mut notifier = notifier();
        let now = Instant::now();
        notifier.set_status(&key(), status(None, Some("u1")), now);
        finish_due(&mut notifier, Ok(()));
        notifier.set_status(&key(), status(None, Some("u1")), now);
        assert!(notifier.pending.is_empty());
        notifier.set_status(&key(), status(None, None), now);
        assert!(notifier.retracted.is_empty() && is_forgotten(&mut notifier));
    }
}
