//! Clean-up: nothing of ours in any pod of this node, nor on the node itself.
//!
//! Writes: removes our tables, chains, jumps and routes in every ready sandbox the container runtime knows, whichever backend put them
//! there. Needs no API server: it also works by hand on a node that is being taken out of use.

use crate::backend::detect;
use crate::container_runtime::{self, SandboxSource};
use crate::index::HOST_UID;
use crate::netns::apply::{self, remove};
use crate::netns::{self, Netns};
use futures::{StreamExt, stream};
use std::time::Duration;
use tracing::{info, warn};

/// Namespaces worked on at the same time.
const WORKERS: usize = 8;

/// Longest time for one namespace.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a namespace may take from being unmounted to being gone.
const VANISHING: Duration = Duration::from_millis(500);

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Namespaces in which nothing of ours is left.
    pub clean: usize,
    /// Namespaces of which that is not known.
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
    #[error("the work in the network namespace did not end within 20 s")]
    Hangs,
}

impl Error {
    /// It has no namespace of its own, or went away meanwhile.
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
    /// Between the unmount and the removal of its file a namespace that goes is a plain file, which cannot be entered. One that stays
    /// so is not taken for gone: that is how the directory looks when it is mounted without propagation.
    fn may_be_absence(&self) -> bool {
        matches!(self, Self::Netns(netns::Error::Enter(_)))
    }
}

/// Cleans every pod of this node, and the node, once.
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
                    "Could not clean up"
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
    info!(clean = outcome.clean, failed = outcome.failed, "Cleaned up");
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
        .map_err(|_| Error::Hangs)?;
    Ok(in_time.map_err(|_| Error::Hangs)???)
}
