//! Doing work only while holding a Lease, so that of several replicas one acts.
//!
//! A Lease is no fence: a replica that was paused may act for a moment after it lost it. Writers therefore carry preconditions.

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Which Lease, by whom, how long.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Who holds it: the pod's name.
    pub holder: String,
    /// How long others wait for a holder that vanished. Whole seconds.
    pub duration: Duration,
    /// How long before the end of `duration` the holder renews. Whole seconds.
    pub renew_before: Duration,
}

/// Why leading ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Lease cannot be read or written at all.
    #[error("lease {namespace}/{name} cannot be used")]
    Lease {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: LeaseManagerError,
    },
    /// Another replica holds it now. The process must exit: what it believes is out of date.
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
    let refused = |source| Error::Lease {
        namespace: namespace.clone(),
        name: name.clone(),
        source,
    };
    let manager = LeaseManagerBuilder::new(client, name.as_str())
        .with_namespace(&namespace)
        .with_identity(&holder)
        .with_field_manager(&holder)
        .with_duration(duration.as_secs())
        .with_grace(renew_before.as_secs())
        .build()
        .await
        .map_err(refused)?;
    let (mut holding, keeper) = manager.watch().await;

    let acquired = tokio::select! {
        acquired = holding.wait_for(|holding| *holding) => acquired.is_ok(),
        () = shutdown.cancelled() => false,
    };
    let result = if acquired {
        info!(lease = %name, %holder, "Leading");
        tokio::select! {
            done = work(shutdown.clone()) => done.map_err(|error| Error::Work(error.into())),
            _ = holding.wait_for(|holding| !*holding) => Err(Error::Lost { namespace: namespace.clone(), name: name.clone() }),
        }
    } else {
        Ok(())
    };
    // The keeper releases the lease once nobody listens any more; a successor need not wait for it to run out.
    drop(holding);
    match tokio::time::timeout(Duration::from_secs(5), keeper).await {
        Ok(Ok(Err(source))) if result.is_ok() => Err(refused(source)),
        _ => result,
    }
}
