//! Lookup of the network namespaces of pods at the container runtime.
//!
//! Reads only. The lookup uses the sandbox, not a container: it exists before the first container and outlives every restart of one,
//! and its path of the namespace does not depend on process ids, which are reused.

pub mod cri;

use api::ObjectName;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Ready pod sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Id; a recreated sandbox has another one.
    pub id: String,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Handler of the RuntimeClass; empty: the default.
    pub runtime_handler: String,
}

impl Sandbox {
    /// Returns true when packets of the pod pass another network stack than the node's kernel, so that rules in the namespace do not apply:
    /// gVisor (`runsc`) and Kata, by the handler names of their documentation.
    pub fn has_own_stack(&self) -> bool {
        let handler = self.runtime_handler.to_ascii_lowercase();
        ["kata", "runsc", "gvisor"]
            .iter()
            .any(|name| handler.contains(name))
    }
}

/// Error of a lookup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container runtime responds.
    #[error("no container runtime responds: {0}; set its socket with --container-runtime-endpoint")]
    NoRuntime(String),
    /// The runtime stopped, or did not respond in time.
    #[error("the container runtime failed: {0}")]
    Runtime(String),
    /// The runtime returned an error, which concerns one pod.
    #[error("the container runtime returned an error: {0}")]
    Rejected(String),
    /// The sandbox does not exist yet, or no longer. Runtimes list a sandbox only when it is complete.
    #[error("the pod has no ready sandbox")]
    NotReady,
    /// The runtime does not report the network namespace.
    #[error("the container runtime reports no network namespace for sandbox {id:?}")]
    NoNetns {
        /// Id of the sandbox.
        id: String,
    },
}

/// Source of the sandboxes of this node.
#[async_trait]
pub trait SandboxSource: Send + Sync {
    /// Returns the ids of all ready sandboxes.
    async fn ready(&self) -> Result<BTreeSet<String>, Error>;

    /// Returns the ready sandbox of the pod with this UID and name; of several, the latest. The UID alone is not enough: that of a static
    /// pod is an annotation, in which any user could write the UID of another pod.
    async fn of_pod(&self, uid: &str, name: &ObjectName) -> Result<Sandbox, Error>;

    /// Returns the path of the network namespace of a sandbox.
    async fn netns(&self, id: &str) -> Result<PathBuf, Error>;
}
