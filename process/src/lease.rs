//! Leader election by a Lease: of several replicas one works.
//!
//! Writes: one Lease. The protocol is that of client-go, decided in docs/adr/0006-own-leader-election.md.
//!
//! A Lease is no fence: a replica that was paused may act for a moment after it lost it. Writers therefore carry preconditions.

mod lock;
#[cfg(test)]
mod tests;

use crate::client::is_busy;
use crate::error_chain;
use kube::Client;
use lock::{Lock, is_timeout};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// Options of the leader election.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Identity of the holder: the pod's name.
    pub holder: String,
    /// leaseDurationSeconds: other replicas wait this long for a holder that vanished. Whole seconds.
    pub duration: Duration,
    /// Time before the end of `duration` at which the holder renews. Whole seconds.
    pub renew_before: Duration,
}

/// Error that ended leading.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Failed to read or write the Lease.
    #[error("failed to acquire or renew lease {namespace}/{name}")]
    Lease {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Error of the API server.
        #[source]
        source: kube::Error,
    },
    /// Another replica holds it now. The process must exit: its state is stale.
    #[error("lost lease {namespace}/{name} to another replica")]
    Lost {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The work failed while leading.
    #[error("work under the lease failed")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Interval at which a waiting replica reads the Lease, and a holder repeats a failed renewal.
const RETRY: Duration = Duration::from_secs(2);

/// Time limit for the release: a successor that waits longer gains nothing from it.
const RELEASE: Duration = Duration::from_secs(5);

/// Waits for the Lease, runs `work` while holding it, and releases it when `shutdown` is cancelled and the work has returned.
pub async fn lead<W, F, E>(
    client: Client,
    options: LeaseOptions,
    shutdown: CancellationToken,
    work: W,
) -> Result<(), Error>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<(), E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (namespace, name) = (options.namespace.clone(), options.name.clone());
    let failed = |source| Error::Lease {
        namespace: namespace.clone(),
        name: name.clone(),
        source,
    };
    let (holder, interval) = (
        options.holder.clone(),
        options.duration.saturating_sub(options.renew_before),
    );
    let mut lock = Lock::new(client, options);
    if !acquire(&mut lock, &name, &shutdown).await.map_err(failed)? {
        return Ok(());
    }
    info!(lease = %name, %holder, "Acquired the lease");
    let stop = CancellationToken::new();
    let kept = {
        let (stop, name) = (stop.clone(), name.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep(&mut lock, &name, interval) => {}
            }
            lock
        }
    };
    // A task of its own: work that computes for seconds delays no renewal.
    let mut keeper = AbortOnDropHandle::new(tokio::spawn(kept));
    let result = tokio::select! {
        done = work(shutdown.clone()) => done.map_err(|error| Error::Work(error.into())),
        _ = &mut keeper => return Err(Error::Lost { namespace: namespace.clone(), name: name.clone() }),
    };
    stop.cancel();
    let Ok(mut lock) = keeper.await else {
        return result;
    };
    match tokio::time::timeout(RELEASE, lock.release()).await {
        Ok(Err(source)) if result.is_ok() => Err(failed(source)),
        _ => result,
    }
}

/// Returns true when this replica holds the Lease, false on shutdown. Fails when the first read does, unless the API server is busy or slow: a
/// restart of the process would only add load.
async fn acquire(lock: &mut Lock, name: &str, shutdown: &CancellationToken) -> kube::Result<bool> {
    loop {
        match lock.acquire().await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if lock.has_read() || is_busy(&error) || is_timeout(&error) => {
                warn!(lease = %name, error = %error_chain(&error), "Failed to read the lease, retrying");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Ok(false),
        }
    }
}

/// Renews the Lease until another replica has it. An API server that is away ends nothing: it serves no other replica either. Where only this
/// replica cannot reach it, another one acquires the expired Lease, and this one ends at its first renewal that is answered.
async fn keep(lock: &mut Lock, name: &str, interval: Duration) {
    let mut due = Instant::now() + interval;
    loop {
        sleep_until(due).await;
        // Counted from the start of a request: one that hangs takes no more time.
        let began = Instant::now();
        due = began
            + match lock.renew().await {
                Ok(true) => interval,
                Ok(false) => return,
                Err(error) => {
                    warn!(lease = %name, error = %error_chain(&error), "Failed to renew the lease, retrying");
                    RETRY
                }
            };
    }
}
