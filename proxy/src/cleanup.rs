//! Cleanup: removes all rules and routes of this project from the pods of this node and from the node itself.
//!
//! Writes: removes our tables, chains, jumps and routes of every backend, in every ready sandbox of the container runtime. Needs no API
//! server, so that it also works as a manual command on a node that is being decommissioned.

use crate::backend::detect;
use crate::container_runtime::{self, SandboxSource};
use crate::index::HOST_UID;
use crate::netns::apply::{self, remove};
use crate::netns::{self, Netns};
use futures::{StreamExt, stream};
use std::time::Duration;
use tracing::{info, warn};

/// Namespaces that are cleaned up concurrently.
const WORKERS: usize = 8;

/// Longest time per namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest time between the unmount of a namespace and its removal.
const VANISHING: Duration = Duration::from_millis(500);

/// Result of a cleanup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Namespaces without any of our rules and routes.
    pub clean: usize,
    /// Namespaces whose cleanup failed.
    pub failed: usize,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Sandbox(#[from] container_runtime::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("the operation in the network namespace did not finish within 20 s")]
    TimedOut,
}

impl Error {
    /// Returns true when the sandbox has no network namespace of its own, or is deleted.
    fn is_absence(&self) -> bool {
        use netns::Error::{Gone, Host};
        matches!(
            self,
            Self::Sandbox(container_runtime::Error::NoNetns { .. } | container_runtime::Error::NotReady)
                | Self::Netns(Gone { .. } | Host { .. })
        )
    }
}

impl Error {
    /// Returns true when the namespace may be about to be deleted: between its unmount and the removal of its file it is a plain file, which
    /// cannot be entered. A file that remains does not count as deleted: the directory looks like this when mounted without propagation.
    fn may_be_absence(&self) -> bool {
        matches!(self, Self::Netns(netns::Error::Enter(_)))
    }
}

/// Cleans up every pod of this node, and the node, once.
pub async fn cleanup(sandboxes: &dyn SandboxSource) -> Result<Outcome, container_runtime::Error> {
    let mut ids = sandboxes.ready().await?;
    ids.insert(HOST_UID.to_owned());
    let cleaned = stream::iter(ids).map(|id| async move {
        let mut cleaned = clean(sandboxes, &id).await;
        if cleaned.as_ref().is_err_and(Error::may_be_absence) {
            tokio::time::sleep(VANISHING).await;
            cleaned = clean(sandboxes, &id).await;
        }
        match &cleaned {
            Err(error) if !error.is_absence() => {
                warn!(
                    sandbox = id,
                    error = error as &dyn std::error::Error,
                    "Failed to clean up a sandbox"
                );
                false
            }
            _ => true,
        }
    });
    let cleaned: Vec<bool> = cleaned.buffer_unordered(WORKERS).collect().await;
    let failed = cleaned.iter().filter(|clean| !**clean).count();
    let outcome = Outcome {
        clean: cleaned.len() - failed,
        failed,
    };
    info!(clean = outcome.clean, failed = outcome.failed, "Finished cleanup");
    Ok(outcome)
}

async fn clean(sandboxes: &dyn SandboxSource, id: &str) -> Result<(), Error> {
    if id == HOST_UID {
        return clean_in(Netns::home()?).await;
    }
    clean_in(Netns::open(&sandboxes.netns(id).await?)?).await
}

async fn clean_in(netns: Netns) -> Result<(), Error> {
    let done = netns.spawn(|| {
        let backends = detect::all();
        remove(&backends.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    })?;
    let in_time = tokio::time::timeout(PATIENCE, done)
        .await
        .map_err(|_| Error::TimedOut)?;
    Ok(in_time.map_err(|_| Error::TimedOut)???)
}
