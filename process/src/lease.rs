//! Leader election by a Lease: of several replicas one works.
//!
//! A Lease is no fence: a replica that was paused may act for a moment after it lost it. Writers therefore carry preconditions.

use crate::client::is_busy;
use crate::error_chain;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
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
        source: LeaseManagerError,
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

/// Interval at which a waiting replica checks whether the Lease was released.
const RETRY: Duration = Duration::from_secs(2);

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
    let LeaseOptions {
        namespace,
        name,
        holder,
        duration,
        renew_before,
    } = options;
    let rejected = |source| Error::Lease {
        namespace: namespace.clone(),
        name: name.clone(),
        source,
    };
    let manager = async || {
        LeaseManagerBuilder::new(client.clone(), name.as_str())
            .with_namespace(&namespace)
            .with_identity(&holder)
            .with_field_manager(&holder)
            .with_duration(duration.as_secs())
            .with_grace(renew_before.as_secs())
            .build()
            .await
            .map_err(rejected)
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    // A busy API server is retried: a restart of the process would only add load.
    let first = loop {
        match manager().await {
            Err(Error::Lease {
                source: LeaseManagerError::KubeError(error),
                ..
            }) if is_busy(&error) => {
                warn!(lease = %name, error = %error_chain(&error), "Failed to read the lease, retrying");
            }
            first => break first?,
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    };
    let (mut holding, mut keeper) = first.watch().await;
    let acquired = loop {
        tokio::select! {
            acquired = holding.wait_for(|holding| *holding) => break acquired.is_ok(),
            () = shutdown.cancelled() => break false,
            () = tokio::time::sleep(RETRY) => {}
        }
        // A waiting manager sleeps until the lease it saw runs out, also when its holder releases it meanwhile; a new manager reads it again.
        if is_free(&leases, &name).await
            && let Ok(fresh) = manager().await
        {
            keeper.abort();
            (holding, keeper) = fresh.watch().await;
        }
    };
    let result = if acquired {
        info!(lease = %name, %holder, "Acquired the lease");
        tokio::select! {
            done = work(shutdown.clone()) => done.map_err(|error| Error::Work(error.into())),
            _ = holding.wait_for(|holding| !*holding) => Err(Error::Lost { namespace: namespace.clone(), name: name.clone() }),
        }
    } else {
        Ok(())
    };
    // The keeper releases the lease once its receiver is dropped; a successor need not wait until it expires.
    drop(holding);
    match tokio::time::timeout(Duration::from_secs(5), keeper).await {
        Ok(Ok(Err(source))) if result.is_ok() => Err(rejected(source)),
        _ => result,
    }
}

async fn is_free(leases: &Api<Lease>, name: &str) -> bool {
    let spec = leases
        .get_opt(name)
        .await
        .ok()
        .flatten()
        .and_then(|lease| lease.spec);
    spec.is_some_and(|spec| spec.holder_identity.is_none_or(|holder| holder.is_empty()))
}
