//! Shared by the work of all pods: dependencies, limits and locks.
//!
//! Pure.

use super::context::{Context, Reporters};
use super::sandbox_locks::SandboxLocks;
use super::worker_pool::WorkerPool;
use crate::backend::Backend;
use crate::container_runtime::SandboxSource;
use crate::netlink::monitor::NamespaceIds;
use crate::netns::memory::Memory;
use process::traces::Traces;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Shared by the work of all pods.
pub(super) struct Shared {
    pub(super) sandboxes: Arc<dyn SandboxSource>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) reporters: Reporters,
    pub(super) traces: Traces,
    /// Assigns namespace ids for the netlink monitor, if it runs.
    pub(super) namespace_ids: Option<NamespaceIds>,
    /// Locks and origin of sandboxes.
    pub(super) sandbox_locks: SandboxLocks,
    pub(super) worker_pool: WorkerPool,
    pub(super) memory: Memory,
    /// Receives the UIDs of pods whose attempt is stuck.
    pub(super) stuck: mpsc::UnboundedSender<String>,
}

impl Shared {
    pub(super) fn new(
        context: Context,
        namespace_ids: Option<NamespaceIds>,
        stuck: mpsc::UnboundedSender<String>,
    ) -> Self {
        Self {
            sandboxes: context.sandboxes,
            backend: context.backend,
            reporters: context.reporters,
            traces: context.traces,
            namespace_ids,
            sandbox_locks: SandboxLocks::new(context.earlier),
            worker_pool: WorkerPool::default(),
            memory: Memory::default(),
            stuck,
        }
    }
}
