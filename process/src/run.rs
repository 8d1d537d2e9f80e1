//! Life cycle of a process: set up, work, stop.

use crate::args::ProcessArgs;
use crate::error_chain;
use crate::logs::LogFilter;
use crate::shutdown::Termination;
use crate::{Health, admin, client, logs, metrics};
use axum::Router;
use kube::Client;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Grace period of the work after a signal. Below terminationGracePeriodSeconds, 30 s by default.
const GRACE: Duration = Duration::from_secs(20);

/// Commit of a build that is no release.
const UNKNOWN_COMMIT: &str = "unknown";

/// Identity of the process.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Binary name, also the service name of its traces.
    pub name: &'static str,
    /// Version, as `--version` prints it.
    pub version: &'static str,
    /// Commit of a released build: `option_env!("MULTUS_SERVICE_COMMIT")` in `main.rs`, so that a commit compiles no library again.
    pub commit: Option<&'static str>,
    /// Default of `--health-probe-bind-address`.
    pub http: SocketAddr,
    /// Default of `--metrics-bind-address`.
    pub metrics: SocketAddr,
}

/// Context of the work.
#[derive(Clone)]
pub struct Process {
    /// Connection to the API server.
    pub client: Client,
    /// Readiness and liveness, reported by the work.
    pub health: Health,
    /// Changes the log filter.
    pub log_filter: LogFilter,
    /// Cancelled on a signal; the work then has 20 s to return.
    pub shutdown: CancellationToken,
}

/// Error that ended a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Failed to set up logs.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// Failed to create the client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Failed to bind the address of health or metrics.
    #[error("failed to serve {what} on {address}; choose another {argument}")]
    Bind {
        /// Health or metrics.
        what: &'static str,
        /// The argument that changes it.
        argument: &'static str,
        /// The requested address.
        address: SocketAddr,
        /// Usually: address in use.
        #[source]
        source: io::Error,
    },
    /// Failed to set up TLS for the metrics.
    #[error(transparent)]
    Tls(#[from] admin::SettingsError),
    /// Failed to receive signals.
    #[error("failed to receive signals")]
    Signal(#[source] io::Error),
    /// The work failed.
    #[error("{name} failed")]
    Work {
        /// Binary name.
        name: &'static str,
        /// Error of the work.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The work returned without a signal.
    #[error("{0} exited unexpectedly")]
    Ended(&'static str),
    /// The work did not return in time.
    #[error("{0} did not stop within 20 s of the signal")]
    Stuck(&'static str),
}

/// Sets up TLS, logs, client and endpoints, runs `work`, and stops it on SIGTERM or SIGINT.
///
/// Returns `Ok` only when a signal was received and the work returned without error.
pub async fn run<W, F, E>(
    identity: Identity,
    args: &ProcessArgs,
    registry: Registry,
    work: W,
) -> Result<(), Error>
where
    W: FnOnce(Process) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    run_with_routes(identity, args, registry, Router::new(), work).await
}

/// [`run`] with additional routes beside the metrics: HTTPS for authorized clients. Their paths are fixed.
pub async fn run_with_routes<W, F, E>(
    identity: Identity,
    args: &ProcessArgs,
    mut registry: Registry,
    routes: Router,
    work: W,
) -> Result<(), Error>
where
    W: FnOnce(Process) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Identity {
        name,
        version,
        commit,
        http,
        metrics,
    } = identity;
    let commit = commit.unwrap_or(UNKNOWN_COMMIT);
    let termination = Termination::listen().map_err(Error::Signal)?;
    metrics::register(&mut registry, name, version, commit);
    let telemetry = logs::init(name, args)?;
    let http = args.health_probe_bind_address.unwrap_or(http);
    let (http, probes) = bind("health", "--health-probe-bind-address", http)?;
    let metrics = args.metrics_bind_address.unwrap_or(metrics);
    let (metrics, scrapes) = bind("metrics", "--metrics-bind-address", metrics)?;
    let settings = admin::settings(name, args)?;
    let process = Process {
        client: client::connect(args).await?,
        health: Health::new(),
        log_filter: telemetry.filter(),
        shutdown: CancellationToken::new(),
    };
    info!(name, version, commit, %http, %metrics, "Started");

    let probes = admin::serve_probes(probes, process.health.clone());
    let scrapes = admin::serve_metrics(scrapes, settings, process.client.clone(), registry, routes);
    let shutdown = process.shutdown.clone();
    let outcome = async move {
        work(process).await.map_err(|error| Error::Work {
            name,
            source: error.into(),
        })
    };
    tokio::select! {
        ended = run_until_signal(name, outcome, termination, shutdown) => ended,
        never = probes => match never {},
        never = scrapes => match never {},
    }
}

/// Returns the listener with its address, whose port may have been chosen by the kernel.
fn bind(
    what: &'static str,
    argument: &'static str,
    address: SocketAddr,
) -> Result<(SocketAddr, TcpListener), Error> {
    let listener = admin::bind(address).map_err(|source| Error::Bind {
        what,
        argument,
        address,
        source,
    })?;
    Ok((listener.local_addr().unwrap_or(address), listener))
}

async fn run_until_signal(
    name: &'static str,
    work: impl Future<Output = Result<(), Error>>,
    mut termination: Termination,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => {
            ended?;
            return Err(Error::Ended(name));
        }
        signal = termination.recv() => info!(signal, "Stopping"),
    }
    shutdown.cancel();
    let stopped = tokio::time::timeout(GRACE, work)
        .await
        .unwrap_or(Err(Error::Stuck(name)));
    match &stopped {
        Ok(()) => info!("Stopped"),
        Err(error) => warn!(error = %error_chain(error), "Stopped with an error"),
    }
    stopped
}
