//! Assembles the controller: watches, driver, lease.

use crate::apply::Writer;
use crate::controller::{self, Driver, Leadership};
use crate::index::Index;
use crate::manual::Scope;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::watches;
use process::Process;
use process::lease::{self, LeaseOptions};
use process::traces::Traces;
use std::convert::Infallible;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Changes that may wait between a watch and the driver.
const CHANNEL: usize = 256;

/// Errors that stop the controller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver failed.
    #[error(transparent)]
    Controller(#[from] controller::Error),
    /// The lease failed or was lost.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// A watch panicked.
    #[error("watch exited unexpectedly")]
    Watch,
}

/// Runs the controller until shutdown. `lease`: `None` to write without leader election.
pub async fn run(
    process: Process,
    settings: Settings,
    metrics: Metrics,
    traces: Traces,
    instance: &str,
    lease: Option<LeaseOptions>,
) -> Result<(), Error> {
    let Process {
        client,
        health,
        shutdown,
        ..
    } = process;
    let (sender, changes) = mpsc::channel(CHANNEL);
    let (scope, scope_changes) = watch::channel(Scope::default());
    let mut watching = watches::start(&client, &sender, scope_changes);
    drop(sender);
    let granted = CancellationToken::new();
    // Cancelled by a shutdown and by the loss of the lease: a driver that no longer leads must not begin another write.
    let stop = shutdown.child_token();
    let writer = Writer::new(client.clone(), instance);
    let index = Index::new(settings);
    let driver = Driver::new(client.clone(), index, writer, scope, metrics, health).with_traces(traces);
    let leadership = Leadership {
        granted: granted.clone(),
        shutdown: stop.clone(),
    };
    let driving = driver.run(changes, leadership);

    let finished = CancellationToken::new();
    // The lease is held until the driver has finished its writes, and only then given to the next.
    let held = finished.clone();
    let leading = async move {
        let Some(options) = lease else {
            granted.cancel();
            held.cancelled().await;
            return Ok(());
        };
        lease::lead(client, options, shutdown, |_| async move {
            let _dropped_with_the_lease = stop.drop_guard();
            granted.cancel();
            held.cancelled().await;
            Ok::<_, Infallible>(())
        })
        .await
    };
    let driving = async {
        let ended = driving.await;
        finished.cancel();
        ended
    };
    tokio::pin!(driving, leading);
    tokio::select! {
        ended = &mut driving => {
            ended?;
            Ok(leading.await?)
        }
        // Stopped before it ever led, or the lease was lost: then its holder writes, and this process exits at once.
        ended = &mut leading => {
            ended?;
            Ok(driving.await?)
        }
        Some(_) = watching.join_next() => Err(Error::Watch),
    }
}
