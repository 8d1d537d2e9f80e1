//! Writes: Events. A repeated one is counted on the earlier one, also on that of another replica or of the process before a restart.

use super::event::Event;
use super::rate::ObjectRates;
use super::series::{Counted, SeriesCache};
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::Reporter;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::debug;

/// No request may take longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An Event that was not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server returned an error, or cannot be reached.
    #[error(transparent)]
    Api(Box<kube::Error>),
    /// No answer in time. The Event may have been written.
    #[error("no answer from the API server within 30 s")]
    Timeout,
}

impl Error {
    /// Returns true if the API server rejects this request, now and later: 4xx, but nothing that passes.
    fn is_rejection(&self) -> bool {
        self.code()
            .is_some_and(|code| matches!(code, 400..500) && !matches!(code, 408 | 409 | 429))
    }

    /// Returns true if the API server is away, for this Event as for any other. 429 may mean the Events of one namespace (EventRateLimit).
    pub(super) fn is_outage(&self) -> bool {
        self.code().is_none_or(|code| matches!(code, 503 | 504))
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(error) => match &**error {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Timeout => None,
        }
    }
}

/// Publishes Events in the name of one process. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    reporter: Arc<Reporter>,
    published: Arc<Mutex<Recent>>,
}

/// What was published lately.
#[derive(Default)]
struct Recent {
    series: SeriesCache,
    rates: ObjectRates,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("reporter", &self.reporter)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Publishes as `controller`, the name of the component, and `instance`, the name of the pod or node.
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        Self {
            client,
            reporter: Arc::new(Reporter {
                controller: controller.to_owned(),
                instance: Some(instance.to_owned()),
            }),
            published: Arc::default(),
        }
    }

    /// Publishes an Event, in at most five requests of at most 30 s each. One too many on its object is dropped.
    pub async fn publish(&self, event: &Event) -> Result<(), Error> {
        let (object, key) = (event.object_key(), event.series_key());
        let known = {
            let published = self.published();
            if !published.rates.allows(&object, Instant::now()) {
                debug!(
                    object,
                    reason = event.reason,
                    "Dropped an Event: too many on one object"
                );
                return Ok(());
            }
            published.series.get(&key, Instant::now())
        };
        let counted = match known {
            Some(earlier) => match self.increment(event, earlier).await {
                // It was deleted, or expired.
                Err(error) if error.is_rejection() => self.create(event).await?,
                counted => counted?,
            },
            None => self.create(event).await?,
        };
        let mut published = self.published();
        published.rates.count(object, Instant::now());
        published.series.record(key, counted, Instant::now());
        Ok(())
    }

    fn published(&self) -> MutexGuard<'_, Recent> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, event: &Event) -> Result<Counted, Error> {
        match self.create_as(event, event.name()).await {
            Err(error) if error.code() == Some(409) => {}
            created => return created,
        }
        match self.count_on_existing(event).await {
            // Another client wrote an Event of this name, or it expired just now.
            Err(error) if error.is_rejection() => {
                let now = Timestamp::now().as_nanosecond();
                self.create_as(event, format!("{}.{now:x}", event.name())).await
            }
            counted => counted,
        }
    }

    async fn create_as(&self, event: &Event, name: String) -> Result<Counted, Error> {
        let object = event.object(name.clone(), &self.reporter, Timestamp::now());
        bounded(self.api(event).create(&PostParams::default(), &object)).await?;
        Ok(Counted::first(name))
    }

    /// Counts on an Event that this process does not know. The API server returns the whole object for a patch, so an empty patch reads it
    /// without the verb `get`.
    async fn count_on_existing(&self, event: &Event) -> Result<Counted, Error> {
        let name = event.name();
        let existing = self.patch(event, &name, json!({})).await?;
        let count = existing.series.map_or(1, |series| series.count);
        self.increment(event, Counted { name, count }).await
    }

    async fn increment(&self, event: &Event, earlier: Counted) -> Result<Counted, Error> {
        let counted = earlier.next();
        let now = v1::EventSeries {
            count: counted.count,
            last_observed_time: MicroTime(Timestamp::now()),
        };
        self.patch(event, &counted.name, json!({ "series": now })).await?;
        Ok(counted)
    }

    async fn patch(&self, event: &Event, name: &str, change: Value) -> Result<v1::Event, Error> {
        let params = PatchParams::default();
        bounded(self.api(event).patch(name, &params, &Patch::Merge(&change))).await
    }

    fn api(&self, event: &Event) -> Api<v1::Event> {
        Api::namespaced(self.client.clone(), event.namespace())
    }
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| Error::Api(Box::new(error))),
        Err(_) => Err(Error::Timeout),
    }
}

#[cfg(test)]
pub(super) mod tests;
