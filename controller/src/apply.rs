//! The only writer.
//!
//! Writes: EndpointSlices, Events on Services, the Accepted condition of Services. Every update and delete carries UID and
//! resourceVersion of what it was decided on, so that a leader that was paused cannot undo its successor's work.

mod endpointslices;
mod events;
mod service_condition;

use crate::endpointslice::SlicePlan;
use crate::index::ServiceEntry;
use crate::service_status::problem::Problem;
use api::ObjectName;
use api::names::CONTROLLER;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Client, Resource};
use process::events::Publisher;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

pub use endpointslices::WrittenSlices;

/// No request may take longer; the API server itself gives up after 60 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Errors of writes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A slice could not be created.
    #[error("failed to create an EndpointSlice for Service {service}")]
    Create {
        service: ObjectName,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A slice could not be updated.
    #[error("failed to update EndpointSlice {slice}")]
    Update {
        slice: ObjectName,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A slice could not be deleted.
    #[error("failed to delete EndpointSlice {slice}")]
    Delete {
        slice: ObjectName,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// An Event could not be written.
    #[error("failed to publish Event {reason:?} on Service {service}")]
    Event {
        service: ObjectName,
        /// The event's reason.
        reason: &'static str,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The condition could not be written.
    #[error("failed to update the Accepted condition of Service {service}")]
    Condition {
        service: ObjectName,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time. The write may have happened; the watch will report it.
    #[error("no answer from the API server within 30 s")]
    Timeout,
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        let (Self::Create { source, .. }
        | Self::Update { source, .. }
        | Self::Delete { source, .. }
        | Self::Event { source, .. }
        | Self::Condition { source, .. }) = self
        else {
            return None;
        };
        match &**source {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// Returns true if another client wrote first, so that the decision is out of date.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// `Retry-After` of a throttling API server.
    pub fn retry_after(&self) -> Option<Duration> {
        let details = self.status()?.details.as_ref()?;
        (details.retry_after_seconds > 0).then(|| Duration::from_secs(details.retry_after_seconds.into()))
    }
}

/// Slices to be written for one Service.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The Service.
    pub key: ObjectName,
    pub slices: SlicePlan,
}

/// Events and condition to write for one Service.
#[derive(Clone, Debug)]
pub struct StatusUpdate {
    /// The Service.
    pub key: ObjectName,
    /// The Service; `None` if it is not managed.
    pub service: Option<Arc<ServiceEntry>>,
    /// Problems that have no Event yet.
    pub problems: Vec<Problem>,
    /// Its Accepted condition, when that changes.
    pub condition: Option<Condition>,
    /// UID of a Service that is no longer managed: its condition is removed.
    pub retract: Option<String>,
}

/// Result of the writes of one Service.
#[derive(Debug, Default)]
pub struct WriteResult {
    /// Slices as the API server returned them, and deleted ones.
    pub slices: WrittenSlices,
    /// The first thing that failed.
    pub error: Option<Error>,
}

/// Writes to one cluster.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    publisher: Publisher,
}

impl Writer {
    /// Creates a writer whose Events have the `reportingInstance` `instance`: the pod's name.
    pub fn new(client: Client, instance: &str) -> Self {
        Self {
            publisher: Publisher::new(client.clone(), CONTROLLER, instance),
            client,
        }
    }

    /// Writes slices.
    pub async fn write(&self, work: WriteRequest) -> WriteResult {
        let (slices, error) = endpointslices::write(&self.client, &work).await;
        WriteResult { slices, error }
    }

    /// Writes Events and the condition. Returns the problems whose Events were written, also when a later write failed.
    pub async fn publish(&self, update: StatusUpdate) -> (Vec<Problem>, Result<(), Error>) {
        let mut published = Vec::new();
        let result = self.publish_into(update, &mut published).await;
        (published, result)
    }

    async fn publish_into(&self, update: StatusUpdate, published: &mut Vec<Problem>) -> Result<(), Error> {
        let StatusUpdate {
            key,
            service,
            problems,
            condition,
            retract,
        } = update;
        let Some(entry) = service else {
            return match retract {
                Some(uid) => service_condition::remove(&self.client, &uid, &key).await,
                None => Ok(()),
            };
        };
        for problem in problems {
            let regarding = entry.service.object_ref(&());
            events::publish(&self.publisher, regarding, &problem, &key).await?;
            published.push(problem);
        }
        match &condition {
            Some(condition) => service_condition::write(&self.client, &entry.service, condition, &key).await,
            None => Ok(()),
        }
    }
}

/// A request with a bound on its time.
async fn bounded<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
    failed: impl FnOnce(Box<kube::Error>) -> Error,
) -> Result<T, Error> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| failed(Box::new(error))),
        Err(_) => Err(Error::Timeout),
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn slice_key(slice: &EndpointSlice) -> ObjectName {
    ObjectName::of(slice)
}
