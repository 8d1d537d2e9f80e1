//! Locks of sandboxes, and whether a sandbox may contain rules of an earlier or another proxy.
//!
//! Reads only. A sandbox can outlive its Pod object: the mirror of a static pod is deleted and recreated under
//! another UID while its sandbox stays.

use crate::container_runtime::Sandbox;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// Number of remembered sandboxes above which deleted ones are removed.
const FEW: usize = 128;

/// Sandboxes of this node into which a proxy may have written.
#[derive(Debug)]
pub(super) struct SandboxLocks {
    /// Sandboxes that existed before this process: an earlier proxy may have written into them.
    earlier: BTreeSet<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Sandboxes that this process entered, by id.
    entered: BTreeMap<String, EnteredSandbox>,
    /// Number of sandboxes after the last removal of deleted ones.
    left: usize,
    /// Another proxy writes, or wrote, beside this process.
    is_shared: bool,
}

#[derive(Debug)]
struct EnteredSandbox {
    netns: PathBuf,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// Exclusive access of this process to a sandbox.
pub(super) type SandboxLock = OwnedMutexGuard<()>;

impl SandboxLocks {
    pub(super) fn new(earlier: BTreeSet<String>) -> Self {
        Self {
            earlier,
            state: Mutex::default(),
        }
    }

    /// Another proxy runs on this node: no sandbox counts as untouched from now on.
    pub(super) fn share(&self) {
        self.state().is_shared = true;
    }

    /// Waits for exclusive access. Returns true with it when the sandbox may contain rules.
    pub(super) async fn lock(&self, sandbox: &Sandbox) -> (SandboxLock, bool) {
        let (lock, may_hold) = self.enter(sandbox);
        (lock.lock_owned().await, may_hold)
    }

    fn enter(&self, sandbox: &Sandbox) -> (Arc<tokio::sync::Mutex<()>>, bool) {
        let mut state = self.state();
        let may_hold = state.is_shared || self.earlier.contains(&sandbox.id);
        if let Some(entered) = state.entered.get(&sandbox.id) {
            return (Arc::clone(&entered.lock), true);
        }
        if state.entered.len() >= FEW.max(2 * state.left) {
            state.entered.retain(|_, entered| entered.netns.exists());
            state.left = state.entered.len();
        }
        let lock = Arc::<tokio::sync::Mutex<()>>::default();
        let entered = EnteredSandbox {
            netns: sandbox.netns.clone(),
            lock: Arc::clone(&lock),
        };
        state.entered.insert(sandbox.id.clone(), entered);
        (lock, may_hold)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str, netns: &str) -> Sandbox {
        Sandbox {
            id: id.to_owned(),
            netns: PathBuf::from(netns),
            runtime_handler: String::new(),
        }
    }

    #[tokio::test]
    async fn only_a_sandbox_that_no_proxy_can_have_written_into_counts_as_untouched() {
        let sandboxes = SandboxLocks::new(BTreeSet::from(["old".to_owned()]));
        let may_hold = async |id| sandboxes.lock(&sandbox(id, "/")).await.1;
        assert!(may_hold("old").await && !may_hold("new").await && may_hold("new").await);
        sandboxes.share();
        assert!(may_hold("beside another proxy").await);
    }

    #[tokio::test]
    async fn a_sandbox_has_one_writer_at_a_time() {
        let sandboxes = SandboxLocks::new(BTreeSet::new());
        let (first, _) = sandboxes.lock(&sandbox("a", "/")).await;
        let other = sandbox("a", "/");
        let mut second = std::pin::pin!(sandboxes.lock(&other));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn deleted_sandboxes_are_forgotten() {
        let sandboxes = SandboxLocks::new(BTreeSet::new());
        sandboxes.lock(&sandbox("stays", "/")).await;
        for n in 0..10_000 {
            sandboxes.lock(&sandbox(&n.to_string(), "/no/such")).await;
        }
        assert!(sandboxes.state().entered.len() <= FEW + 1);
        assert!(sandboxes.lock(&sandbox("stays", "/")).await.1);
    }
}
