//! Where a pod's network namespace is.
//!
//! Reads only. The sandbox, not a container, is asked for: it exists before the first container and outlives every restart of
//! one, and it names the namespace by a path that no reused process id can make another's.

pub mod cri;

use async_trait::async_trait;
use rules::ObjectName;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A ready pod sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's name for it; another one after the sandbox was recreated.
    pub id: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// How the runtime runs it, as its RuntimeClass names it; empty: the usual way.
    pub runtime_handler: String,
}

impl Sandbox {
    /// Whether its packets pass another network stack than the node's kernel, where rules in the namespace say nothing to them:
    /// gVisor (`runsc`) and Kata, by the names that their documentation gives to handlers.
    pub fn has_own_stack(&self) -> bool {
        let handler = self.runtime_handler.to_ascii_lowercase();
        ["kata", "runsc", "gvisor"]
            .iter()
            .any(|name| handler.contains(name))
    }
}

/// Why a sandbox was not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime answers.
    #[error("no container runtime answers: {0}; name its socket by --container-runtime-endpoint")]
    NoRuntime(String),
    /// The runtime is gone, or did not answer in time.
    #[error("the container runtime failed: {0}")]
    Runtime(String),
    /// The runtime answered, with an error: that is about one pod.
    #[error("the container runtime rejected: {0}")]
    Rejected(String),
    /// The sandbox is not there yet, or not any more. Runtimes list one only when it is complete.
    #[error("the pod has no ready sandbox")]
    NotReady,
    /// The runtime does not say where the namespace is.
    #[error("the container runtime names no network namespace of sandbox {id:?}")]
    NoNetns {
        /// The sandbox.
        id: String,
    },
}

/// Something that knows the sandboxes of this node.
#[async_trait]
pub trait SandboxSource: Send + Sync {
    /// The ids of all ready sandboxes.
    async fn ready(&self) -> Result<BTreeSet<String>, Error>;

    /// The ready sandbox of the pod with this UID and this name; of several, the latest. The UID alone is not enough: that of a
    /// static pod is read from an annotation, where anybody could name another's.
    async fn of_pod(&self, uid: &str, name: &ObjectName) -> Result<Sandbox, Error>;

    /// Where the network namespace of a sandbox is.
    async fn netns(&self, id: &str) -> Result<PathBuf, Error>;
}
