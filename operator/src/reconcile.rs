//! One reconcile: gather, validate, build, apply, status.

use crate::apply::{self, Applier};
use crate::build::{Desired, arguments, build};
use crate::cache::Cache;
use crate::cleanup::{self, Removal};
use crate::events::EventRecorder;
use crate::gather::{Observed, gather, read_latest};
use crate::metrics::{Metrics, Snapshot};
use crate::operands::Operands;
use crate::options::Options;
use crate::pace::Pace;
use crate::platform::olm;
use crate::status::{self, Outcome};
use crate::validate::{Intent, InvalidConfig, check_scheduling, validate};
use api::MultusServiceConfigStatus;
use api::config::LogLevel;
use kube::Client;
use kube::runtime::controller::Action;
use process::error_chain;
use process::logs::LogFilter;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// Everything is watched; the resync covers what a watch cannot observe.
const RESYNC: Duration = Duration::from_mins(5);
/// Requeue interval while time itself can change the outcome: a removal, a failure, a rollout.
const RECHECK: Duration = Duration::from_secs(10);
/// Requeue interval after an error.
const RETRY: Duration = Duration::from_secs(5);
/// A reconcile that takes longer hangs in the network.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Crates whose log lines are the operator's own.
const CRATES: &[&str] = &["operator", "process"];

/// State that all reconciles share.
pub(crate) struct Context {
    client: Client,
    options: Options,
    applier: Applier,
    recorder: EventRecorder,
    logs: Option<LogFilter>,
    log_level: Mutex<Option<LogLevel>>,
    metrics: Metrics,
    /// Pods and nodes that the watches keep.
    pub(crate) cache: Cache,
    pace: Pace,
}

/// A failed reconcile; it is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The cluster cannot be read.
    #[error("failed to read the cluster")]
    Gather(#[source] kube::Error),
    /// An object cannot be written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status cannot be written.
    #[error("failed to write the status of MultusServiceConfig \"cluster\"")]
    Status(#[source] kube::Error),
    /// The API server did not answer.
    #[error("the API server did not answer within a minute")]
    Timeout,
}

impl Context {
    /// Creates the context of this process.
    pub(crate) fn new(client: Client, options: Options, recorder: EventRecorder) -> Self {
        Self {
            applier: Applier::new(client.clone(), options.namespace.clone(), recorder.clone()),
            recorder,
            logs: None,
            log_level: Mutex::default(),
            metrics: Metrics::default(),
            cache: Cache::default(),
            pace: Pace::default(),
            client,
            options,
        }
    }

    /// Lets the configuration set the log level of this process.
    #[must_use]
    pub(crate) fn with_log_filter(self, logs: LogFilter) -> Self {
        Self {
            logs: Some(logs),
            ..self
        }
    }

    /// Serves the metrics of the reconciles.
    #[must_use]
    pub(crate) fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Ends the series of a configuration that is gone.
    pub(crate) fn configuration_gone(&self) {
        self.metrics.observed(None);
    }

    /// Sets the log level; without one in the configuration, the command line's applies.
    fn set_log_level(&self, wanted: Option<LogLevel>) {
        let mut current = self.log_level.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(logs) = &self.logs
            && *current != wanted
        {
            logs.set(&arguments::filter(wanted.unwrap_or_default(), CRATES));
            *current = wanted;
        }
    }
}

/// Runs one reconcile in bounded time, when it is its turn.
pub(crate) async fn reconcile(context: &Context) -> Result<Action, Error> {
    tokio::time::sleep(context.pace.delay(Instant::now())).await;
    let started = Instant::now();
    // Boxed, because the future is large: it reads every kind of object.
    let result = tokio::time::timeout(TIMEOUT, Box::pin(reconcile_once(context)))
        .await
        .unwrap_or(Err(Error::Timeout));
    context.metrics.reconciled(started.elapsed(), result.is_err());
    result
}

async fn reconcile_once(context: &Context) -> Result<Action, Error> {
    let Context {
        client,
        options,
        applier,
        ..
    } = context;
    let gathered = gather(client, &options.namespace, &options.version, &context.cache);
    let Some(mut observed) = Box::pin(gathered).await.map_err(Error::Gather)? else {
        context.configuration_gone();
        return Ok(Action::await_change());
    };
    context.set_log_level(observed.config.spec.operator_log_level);
    let mut decision = decide(options, &observed);
    if changes_nodes(&decision, &observed.live) {
        read_latest(&mut observed, client, &options.namespace)
            .await
            .map_err(Error::Gather)?;
        decision = decide(options, &observed);
    }
    let (mut intent, desired) = decision;
    let mut applied = match &desired {
        Some(desired) => applier.apply(desired, &observed).await,
        None => Ok(observed.live.clone()),
    };
    if let Err(apply::Error::Rejected(why)) = &applied {
        intent = Err(InvalidConfig::rejected(why.clone()));
        applied = Ok(observed.live.clone());
    }
    let status = report(context, &observed, &intent, &applied).await?;
    let live = applied.as_ref().unwrap_or(&observed.live);
    let snapshot = Snapshot::new(&status, live, &observed.nodes);
    context.metrics.observed(Some(snapshot));
    applied?;
    Ok(requeue(&intent, &status))
}

type Decision = (Result<Intent, InvalidConfig>, Option<Desired>);

/// What the configuration asks for, and the objects that it takes; none when it is invalid.
fn decide(options: &Options, observed: &Observed) -> Decision {
    let intent = match options.removal {
        Some(limit) => Ok(Intent::Remove(cleanup::next_step(observed, limit))),
        None => validate(observed, &options.images),
    };
    let desired = intent
        .as_ref()
        .ok()
        .and_then(|intent| build(intent, observed, &options.namespace, &options.images));
    if let (Ok(Intent::Install(_)), Some(wanted)) = (&intent, &desired)
        && let Err(invalid) = check_scheduling(&wanted.operands, observed)
    {
        return (Err(invalid), None);
    }
    (intent, desired)
}

/// True for a decision about a node, which must not be made from an object of the cache: the label of a node that counts as clean by
/// mistake would be lost, and its rules with it.
fn changes_nodes((intent, desired): &Decision, live: &Operands) -> bool {
    let Some(desired) = desired else { return false };
    let starts_or_ends_cleanup = desired.operands.cleanup().is_some() != live.cleanup().is_some();
    matches!(intent, Ok(Intent::Remove(_))) || !desired.labels.is_empty() || starts_or_ends_cleanup
}

async fn report(
    context: &Context,
    observed: &Observed,
    intent: &Result<Intent, InvalidConfig>,
    applied: &Result<Operands, apply::Error>,
) -> Result<MultusServiceConfigStatus, Error> {
    let message = applied.as_ref().err().map(|error| error_chain(error));
    let outcome = Outcome {
        observed,
        intent,
        live: applied.as_ref().unwrap_or(&observed.live),
        failure: message.as_deref(),
    };
    let status = status::report(&context.client, &context.recorder, &outcome)
        .await
        .map_err(Error::Status)?;
    if let Some(name) = &context.options.operator_condition {
        olm::report_upgradeable(&context.client, &context.options.namespace, name, &status).await;
    }
    if let Ok(Intent::Remove(Removal::Delete { skipped })) = intent {
        context.recorder.cleanup_timed_out(&observed.config, skipped);
    }
    Ok(status)
}

fn requeue(intent: &Result<Intent, InvalidConfig>, status: &MultusServiceConfigStatus) -> Action {
    let is_removal = matches!(intent, Ok(Intent::Remove(Removal::CleanNodes { .. })));
    if is_removal || status.rollout.is_some() || !status.failures.is_empty() {
        Action::requeue(RECHECK)
    } else {
        Action::requeue(RESYNC)
    }
}

/// Logs the error and requeues.
pub(crate) fn error_policy(error: &Error) -> Action {
    warn!(error = %error_chain(error), "Failed to reconcile");
    Action::requeue(RETRY)
}
