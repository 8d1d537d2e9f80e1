//! Which sandboxes may hold what somebody wrote, and whose turn it is in each.
//!
//! Reads only. A sandbox outlives what the API server says of its pod: the mirror of a static pod is deleted and made again, under
//! another UID, around one that stays.

use crate::container_runtime::Sandbox;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// Sandboxes that are remembered before it is looked which of them are gone.
const FEW: usize = 128;

/// The sandboxes of this node, as far as somebody wrote into them.
#[derive(Debug)]
pub(super) struct Sandboxes {
    /// Those that were there before this process: an earlier one may have written.
    earlier: BTreeSet<String>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Those this process entered, by id.
    entered: BTreeMap<String, Entered>,
    /// How many were left when it was looked last.
    left: usize,
    /// Whether another proxy writes, or wrote, beside this process.
    is_shared: bool,
}

#[derive(Debug)]
struct Entered {
    netns: PathBuf,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One piece of work at a time.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Sandboxes {
    pub(super) fn new(earlier: BTreeSet<String>) -> Self {
        Self {
            earlier,
            seen: Mutex::default(),
        }
    }

    /// Another proxy runs on this node. Whatever it wrote into, and when: from now on nothing is taken for untouched.
    pub(super) fn share(&self) {
        self.seen().is_shared = true;
    }

    /// Waits until nobody else of this process works in it. Says whether anything may have been written into it before.
    pub(super) async fn turn(&self, sandbox: &Sandbox) -> (Turn, bool) {
        let (turn, may_hold) = self.enter(sandbox);
        (turn.lock_owned().await, may_hold)
    }

    fn enter(&self, sandbox: &Sandbox) -> (Arc<tokio::sync::Mutex<()>>, bool) {
        let mut seen = self.seen();
        let may_hold = seen.is_shared || self.earlier.contains(&sandbox.id);
        if let Some(entered) = seen.entered.get(&sandbox.id) {
            return (Arc::clone(&entered.turn), true);
        }
        if seen.entered.len() >= FEW.max(2 * seen.left) {
            seen.entered.retain(|_, entered| entered.netns.exists());
            seen.left = seen.entered.len();
        }
        let turn = Arc::<tokio::sync::Mutex<()>>::default();
        let entered = Entered {
            netns: sandbox.netns.clone(),
            turn: Arc::clone(&turn),
        };
        seen.entered.insert(sandbox.id.clone(), entered);
        (turn, may_hold)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nobody panics while he holds it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn only_a_sandbox_that_nobody_can_have_written_into_is_taken_for_untouched() {
        let sandboxes = Sandboxes::new(BTreeSet::from(["old".to_owned()]));
        let may_hold = async |id| sandboxes.turn(&sandbox(id, "/")).await.1;
        assert!(may_hold("old").await && !may_hold("new").await && may_hold("new").await);
        sandboxes.share();
        assert!(may_hold("beside another proxy").await);
    }

    #[tokio::test]
    async fn one_works_in_a_sandbox_at_a_time() {
        let sandboxes = Sandboxes::new(BTreeSet::new());
        let (first, _) = sandboxes.turn(&sandbox("a", "/")).await;
        let other = sandbox("a", "/");
        let mut second = std::pin::pin!(sandboxes.turn(&other));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn sandboxes_that_are_gone_are_forgotten() {
        let sandboxes = Sandboxes::new(BTreeSet::new());
        sandboxes.turn(&sandbox("stays", "/")).await;
        for n in 0..10_000 {
            sandboxes.turn(&sandbox(&n.to_string(), "/no/such")).await;
        }
        assert!(sandboxes.seen().entered.len() <= FEW + 1);
        assert!(sandboxes.turn(&sandbox("stays", "/")).await.1);
    }
}
