//! What `main` runs: serving, or cleaning up.
//!
//! Writes: nothing itself.

use crate::args::BackendChoice;
use crate::backend::iptables::Iptables;
use crate::cleanup::cleanup;
use crate::metrics::Metrics;
use crate::sandbox::cri::Cri;
use crate::sandbox::{self, SandboxSource};
use crate::sync::Context;
use crate::{backend, events, netns, sync, watches};
use process::{Health, Process};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pause before the runtime, or a clean-up that failed, is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No backend.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// No namespace to try backends in.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The event writer stopped although the driver has not.
    #[error("events are not written any more")]
    Events,
}

/// Serves the pods of a node until asked to stop.
pub async fn serve(
    process: Process,
    node_name: &str,
    runtime: Option<&str>,
    choice: BackendChoice,
    metrics: Metrics,
) -> Result<(), Error> {
    let Process {
        client,
        health,
        shutdown,
    } = process;
    let backend = match choice {
        // Auto has one choice more once there is an nftables backend.
        BackendChoice::Auto | BackendChoice::IpTables => Iptables::probe()?,
    };
    info!(backend = backend::Backend::name(&backend), "Chose the backend");
    let Some(sandboxes) = connect(runtime, &health, &shutdown).await else {
        return Ok(());
    };
    let Some(earlier) = ready(&sandboxes, &health, &shutdown).await else {
        return Ok(());
    };
    let (notices, writer) = events::channel();
    let context = Context::new(Arc::new(sandboxes), Arc::new(backend), earlier, notices, metrics);
    let updates = watches::updates(&client, node_name);
    tokio::select! {
        () = sync::run(context, updates, health, shutdown.clone()) => Ok(()),
        () = writer.run(client, node_name) => if shutdown.is_cancelled() { Ok(()) } else { Err(Error::Events) },
    }
}

/// Cleans the node, then stays Ready until asked to stop.
pub async fn clean_and_wait(process: Process, runtime: Option<&str>) -> Result<(), Error> {
    let Process { health, shutdown, .. } = process;
    let Some(sandboxes) = connect(runtime, &health, &shutdown).await else {
        return Ok(());
    };
    let mut clean = false;
    while !shutdown.is_cancelled() {
        if !clean {
            let outcome = cleanup(&sandboxes).await;
            clean = outcome.is_ok_and(|outcome| outcome.failed == 0);
            health.set_ready(clean);
        }
        health.beat();
        pause(&shutdown).await;
    }
    Ok(())
}

/// Waits for a runtime: it may start after us. `None`: asked to stop meanwhile.
async fn connect(endpoint: Option<&str>, health: &Health, shutdown: &CancellationToken) -> Option<Cri> {
    persist(health, shutdown, || Cri::connect(endpoint)).await
}

async fn ready(
    sandboxes: &Cri,
    health: &Health,
    shutdown: &CancellationToken,
) -> Option<std::collections::BTreeSet<String>> {
    persist(health, shutdown, || sandboxes.ready()).await
}

async fn persist<T, F>(health: &Health, shutdown: &CancellationToken, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, sandbox::Error>>,
{
    let mut said = String::new();
    while !shutdown.is_cancelled() {
        health.beat();
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) if error.to_string() != said => {
                said = error.to_string();
                warn!("{said}");
            }
            Err(_) => {}
        }
        pause(shutdown).await;
    }
    None
}

async fn pause(shutdown: &CancellationToken) {
    // Either way the caller looks again.
    let _ = tokio::time::timeout(PAUSE, shutdown.cancelled()).await;
}
