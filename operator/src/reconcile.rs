//! One turn: gather, validate, build, apply, status.

use crate::apply::{self, Applier};
use crate::build::build;
use crate::gather::{Observed, gather};
use crate::operands::Operands;
use crate::removal::Removal;
use crate::run::Options;
use crate::status::{self, Outcome};
use crate::validate::{Intent, InvalidConfig, validate};
use api::names::OPERATOR;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// Everything is watched; this is for what a watch cannot see.
const RESYNC: Duration = Duration::from_mins(5);
/// While time itself can change the outcome: the limit of a removal.
const RECHECK: Duration = Duration::from_secs(10);
/// After an error.
const RETRY: Duration = Duration::from_secs(5);
/// A turn that takes longer hangs in the network.
const LIMIT: Duration = Duration::from_mins(1);

/// What all turns share.
pub struct Context {
    client: Client,
    options: Options,
    applier: Applier,
    recorder: Recorder,
    /// Since when writes have been failing.
    failing_since: Mutex<Option<Timestamp>>,
}

/// Why a turn must be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("the cluster could not be read: {0}")]
    Gather(#[source] kube::Error),
    /// An object could not be written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error("the status of MultusServiceConfig \"cluster\" could not be written: {0}")]
    Status(#[source] kube::Error),
    /// The API server did not answer.
    #[error("no answer from the API server within a minute")]
    Timeout,
}

impl Context {
    /// For one process.
    pub fn new(client: Client, options: Options) -> Self {
        let reporter = Reporter {
            controller: OPERATOR.to_owned(),
            instance: Some(options.holder.clone()),
        };
        Self {
            applier: Applier::new(client.clone(), options.namespace.clone()),
            recorder: Recorder::new(client.clone(), reporter),
            failing_since: Mutex::default(),
            client,
            options,
        }
    }

    /// Remembers whether writes succeed; returns since when they do not.
    fn failing_since(&self, failing: bool, now: Timestamp) -> Option<Timestamp> {
        let mut since = self.failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = failing.then(|| since.unwrap_or(now));
        *since
    }
}

/// Runs one turn in bounded time.
pub async fn reconcile(context: &Context) -> Result<Action, Error> {
    tokio::time::timeout(LIMIT, turn(context))
        .await
        .unwrap_or(Err(Error::Timeout))
}

async fn turn(context: &Context) -> Result<Action, Error> {
    let Context {
        client,
        options,
        applier,
        ..
    } = context;
    let Some(observed) = gather(client, &options.namespace).await.map_err(Error::Gather)? else {
        return Ok(Action::await_change());
    };
    let intent = validate(&observed, &options.images);
    let desired = intent
        .as_ref()
        .ok()
        .and_then(|intent| build(intent, &observed, &options.namespace));
    let applied = match &desired {
        Some(desired) => applier.apply(desired, &observed).await,
        None => Ok(observed.live.clone()),
    };
    report(context, &observed, &intent, &applied).await?;
    applied?;
    Ok(next(&intent))
}

async fn report(
    context: &Context,
    observed: &Observed,
    intent: &Result<Intent, InvalidConfig>,
    applied: &Result<Operands, apply::Error>,
) -> Result<(), Error> {
    let message = applied.as_ref().err().map(ToString::to_string);
    let since = context.failing_since(message.is_some(), observed.now);
    let outcome = Outcome {
        config: &observed.config,
        intent,
        live: applied.as_ref().unwrap_or(&observed.live),
        failure: message.as_deref().zip(since),
        now: observed.now,
    };
    status::patch(&context.client, &outcome)
        .await
        .map_err(Error::Status)?;
    if let Ok(Intent::Remove(Removal::Delete { skipped })) = intent
        && !skipped.is_empty()
    {
        warn_of_skipped(context, observed, skipped).await;
    }
    Ok(())
}

/// An event that cannot be written is no reason to stop: the condition says the same.
async fn warn_of_skipped(context: &Context, observed: &Observed, skipped: &[String]) {
    let event = Event {
        type_: EventType::Warning,
        reason: "NodesNotCleaned".to_owned(),
        note: Some(status::not_cleaned(skipped)),
        action: "Remove".to_owned(),
        secondary: None,
    };
    let config = observed.config.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &config).await {
        warn!(%error, "Could not write an event");
    }
}

fn next(intent: &Result<Intent, InvalidConfig>) -> Action {
    match intent {
        Ok(Intent::Remove(Removal::CleanNodes { .. })) => Action::requeue(RECHECK),
        _ => Action::requeue(RESYNC),
    }
}

/// What follows an error: the same again, soon.
pub fn retry(error: &Error) -> Action {
    warn!(%error, "Could not reconcile");
    Action::requeue(RETRY)
}
