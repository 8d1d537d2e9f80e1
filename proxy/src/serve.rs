//! The two modes of `main`: serving, and cleanup.
//!
//! Writes: nothing itself.

use crate::args::BackendChoice;
use crate::backend::detect::choose;
use crate::cleanup::cleanup;
use crate::container_runtime::SandboxSource;
use crate::container_runtime::cri::Cri;
use crate::debug_state::StateRequests;
use crate::metrics::Metrics;
use crate::netns::host_network::{self, HostInterface};
use crate::report::node_condition::{self, NodeCondition, OwnPod};
use crate::sync::{Context, Reporters};
use crate::watch::ServiceCidrs;
use crate::{sync, watch};
use api::names::PROXY;
use api::rules_applied::Reason;
use futures::stream;
use process::events::{self, Publisher};
use process::traces::Traces;
use process::{Health, Process};
use rules::Settings;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Delay before a failed connection to the runtime or a failed cleanup is retried.
const PAUSE: Duration = Duration::from_secs(2);

/// Reason why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A writer stopped before the driver.
    #[error("the writer of Events or of the node condition stopped")]
    Writers,
}

/// Options of [`serve`].
#[derive(Clone, Debug)]
pub struct Serving<'a> {
    /// Settings of node and cluster.
    pub settings: Settings,
    /// Pod of this process, which carries the condition.
    pub own_pod: Option<OwnPod>,
    /// Socket of the container runtime.
    pub runtime: Option<&'a str>,
    /// Requested backend.
    pub backend: BackendChoice,
    /// Networks served to the node itself.
    pub host_networks: Vec<HostInterface>,
    /// Namespaces in which the archived multus-service proxy is recognized.
    pub legacy_namespaces: BTreeSet<String>,
    /// Traces of changes.
    pub traces: Traces,
}

/// Serves the pods of a node until shutdown.
pub async fn serve(
    process: Process,
    options: Serving<'_>,
    metrics: Metrics,
    requests: StateRequests,
) -> Result<(), Error> {
    let (event_sender, event_writer) = events::channel();
    let event_sender = event_sender.into();
    let (reporter, condition) = node_condition::channel();
    let (client, shutdown) = (process.client.clone(), process.shutdown.clone());
    let publisher = Publisher::new(client.clone(), PROXY, &options.settings.node.name);
    let own_pod = options.own_pod.clone();
    let written = async {
        tokio::join!(
            event_writer.run(publisher),
            condition.run(client.clone(), own_pod)
        )
    };
    tokio::select! {
        () = serve_pods(process, &options, Reporters { event_sender, reporter, metrics }, requests) => Ok(()),
        _ = written => if shutdown.is_cancelled() { Ok(()) } else { Err(Error::Writers) },
    }
}

/// Runs until shutdown. Waits for what the node lacks, and reports it in the condition.
async fn serve_pods(process: Process, options: &Serving<'_>, reporters: Reporters, requests: StateRequests) {
    let Process {
        client,
        health,
        shutdown,
        ..
    } = process;
    let reporter = reporters.reporter.clone();
    let report_missing = |reason| {
        let reporter = reporter.clone();
        move |why: &str| reporter.report(NodeCondition::not_applied(reason, why))
    };
    let probe = || async { choose(options.backend) };
    let Some(backend) = retry_until_ok(
        &health,
        &shutdown,
        report_missing(Reason::NoSupportedBackend),
        probe,
    )
    .await
    else {
        return;
    };
    let report_no_runtime = report_missing(Reason::ContainerRuntimeUnavailable);
    let Some(sandboxes) = retry_until_ok(&health, &shutdown, &report_no_runtime, || {
        Cri::connect(options.runtime)
    })
    .await
    else {
        return;
    };
    let Some(earlier) = retry_until_ok(&health, &shutdown, &report_no_runtime, || sandboxes.ready()).await
    else {
        return;
    };
    reporter.report(NodeCondition::not_applied(
        Reason::Starting,
        "Waiting for the first lists of the API server",
    ));
    let service_cidrs = if options.settings.reserved.service_cidrs.is_empty() {
        ServiceCidrs::Watched
    } else {
        ServiceCidrs::Given
    };
    let updates = watch::updates_beside(
        &client,
        &options.settings.node.name,
        service_cidrs,
        options.host_networks.iter().map(|mapped| &mapped.network),
    );
    let updates = stream::select(updates, host_network::updates(options.host_networks.clone()));
    let settings = Settings {
        lacks_affinity: !backend.supports_affinity(),
        ..options.settings.clone()
    };
    let mut context = Context::new(Arc::new(sandboxes), backend, earlier, reporters, settings);
    context.legacy_namespaces.clone_from(&options.legacy_namespaces);
    context.traces = options.traces.clone();
    sync::run(context, updates, requests, health, shutdown).await;
}

/// Cleans up the node, then stays Ready until shutdown.
pub async fn cleanup_and_wait(process: Process, runtime: Option<&str>) -> Result<(), Error> {
    let Process { health, shutdown, .. } = process;
    let connect = || Cri::connect(runtime);
    let Some(sandboxes) = retry_until_ok(&health, &shutdown, |_| {}, connect).await else {
        return Ok(());
    };
    let mut clean = false;
    while !shutdown.is_cancelled() {
        if !clean {
            let outcome = cleanup(&sandboxes).await;
            clean = outcome.is_ok_and(|outcome| outcome.failed == 0);
            health.set_ready(clean);
        }
        health.heartbeat();
        pause(&shutdown).await;
    }
    Ok(())
}

/// Retries until success: what is missing may start after this process. `None`: shutdown.
async fn retry_until_ok<T, E, F>(
    health: &Health,
    shutdown: &CancellationToken,
    report: impl Fn(&str),
    mut request: impl FnMut() -> F,
) -> Option<T>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let mut reported = String::new();
    while !shutdown.is_cancelled() {
        health.heartbeat();
        match request().await {
            Ok(result) => return Some(result),
            Err(error) if error.to_string() != reported => {
                reported = error.to_string();
                warn!("{reported}");
                report(&reported);
            }
            Err(_) => {}
        }
        pause(shutdown).await;
    }
    None
}

async fn pause(shutdown: &CancellationToken) {
    // The caller checks for shutdown.
    let _ = tokio::time::timeout(PAUSE, shutdown.cancelled()).await;
}
