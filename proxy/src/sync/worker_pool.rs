//! Limits of concurrent work.
//!
//! Three kinds of work have workers of their own, so that none waits for another: a pod that starts does not wait until an endpoint is
//! programmed in all others, and a container runtime that hangs blocks only attempts that need it.

use crate::backend::KnownRules;
use rules::PodRules;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Workers of each kind.
pub const WORKERS: usize = 8;

/// Workers that may keep a whole ruleset in the memory of this process at the same time. The second shortens the first fill of 100 pods beside
/// 1,000 Services by a third on two CPUs and costs 3 MB.
pub const IN_MEMORY_WORKERS: usize = 2;

/// Largest change, in VIPs, that needs no permit for memory.
const FEW: usize = 64;

/// Longest wait for a permit for memory. The permit only keeps memory small: the owner of a namespace decides how long work in it takes.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Semaphores of the kinds of work.
#[derive(Debug)]
pub(super) struct WorkerPool {
    /// Changes of known rules.
    changing: Arc<Semaphore>,
    /// First writes, and writes that have to read the rules first.
    filling: Arc<Semaphore>,
    /// See [`IN_MEMORY_WORKERS`].
    memory_permits: Arc<Semaphore>,
    /// Requests to the container runtime.
    asking: Arc<Semaphore>,
}

/// Permit to write, until it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    _worker: OwnedSemaphorePermit,
    _memory_permit: Option<OwnedSemaphorePermit>,
}

impl Default for WorkerPool {
    fn default() -> Self {
        let some = |workers| Arc::new(Semaphore::new(workers));
        Self {
            changing: some(WORKERS),
            filling: some(WORKERS),
            memory_permits: some(IN_MEMORY_WORKERS),
            asking: some(WORKERS),
        }
    }
}

impl WorkerPool {
    /// Waits for a worker that changes a namespace from `held` to `wanted`. `is_buffered`: see
    /// [`Backend::buffers_whole_ruleset`](crate::backend::Backend::buffers_whole_ruleset).
    pub(super) async fn write(
        &self,
        held: &KnownRules<PodRules>,
        wanted: &PodRules,
        is_buffered: bool,
    ) -> Worker {
        let workers = match held {
            KnownRules::Exactly(_) => &self.changing,
            KnownRules::Nothing | KnownRules::Unknown => &self.filling,
        };
        let worker = permit(workers).await;
        let memory_permit = if is_buffered && !is_small(held, wanted) {
            timeout(PERMIT_TIMEOUT, permit(&self.memory_permits)).await.ok()
        } else {
            None
        };
        Worker {
            _worker: worker,
            _memory_permit: memory_permit,
        }
    }

    /// Waits for a worker that sends a request to the container runtime.
    pub(super) async fn ask(&self) -> OwnedSemaphorePermit {
        permit(&self.asking).await
    }
}

/// Returns true when the change from `held` to `wanted` needs little memory.
pub(super) fn is_small(held: &KnownRules<PodRules>, wanted: &PodRules) -> bool {
    matches!(held, KnownRules::Exactly(held) if held.vip_count().abs_diff(wanted.vip_count()) <= FEW)
}

async fn permit(limit: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(limit).acquire_owned().await;
    permit.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::NetworkRef;
    use api::ObjectName;
    use futures::FutureExt;
    use rules::{AttachedNetwork, VipRules};
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    const NOTHING: KnownRules<PodRules> = KnownRules::Nothing;

    fn none() -> PodRules {
        some(0)
    }

    /// Returns rules of `vips` VIPs.
    fn some(vips: u32) -> PodRules {
        let service = ObjectName {
            namespace: "web".to_owned(),
            name: "web".to_owned(),
        };
        let ports = BTreeMap::new();
        let rules = Arc::new(VipRules { service, ports });
        let vips = (0..vips).map(|n| (Ipv4Addr::from(n).into(), Arc::clone(&rules)));
        let attached = AttachedNetwork {
            ipv4: None,
            ipv6: None,
            rules: Arc::new(vips.collect()),
        };
        PodRules {
            networks: BTreeMap::from([(NetworkRef::parse("macvlan1", "web").unwrap(), attached)]),
        }
    }

    /// Takes all permits for memory.
    async fn all_in_memory(workers: &WorkerPool) -> Vec<Worker> {
        let none = none();
        let each = (0..IN_MEMORY_WORKERS).map(|_| workers.write(&NOTHING, &none, true));
        futures::future::join_all(each).await
    }

    #[tokio::test]
    async fn few_whole_rulesets_are_buffered_at_a_time() {
        let workers = WorkerPool::default();
        let mut first = all_in_memory(&workers).await;
        let none = none();
        let mut next = Box::pin(workers.write(&KnownRules::Unknown, &none, true));
        assert!((&mut next).now_or_never().is_none());
        first.pop();
        assert!(next.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_slow_worker_delays_others_only_for_a_bounded_time() {
        let workers = WorkerPool::default();
        let none = none();
        let slow = (0..WORKERS).map(|_| timeout(2 * PERMIT_TIMEOUT, workers.write(&NOTHING, &none, true)));
        let slow = futures::future::join_all(slow).await;
        assert!(slow.iter().all(Result::is_ok));
        assert!(
            workers.write(&NOTHING, &none, true).now_or_never().is_none(),
            "but they are bounded"
        );
        assert!(
            workers
                .write(&KnownRules::Exactly(none.clone()), &none, true)
                .now_or_never()
                .is_some()
        );
        assert!(workers.ask().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_change_needs_no_permit_unless_it_is_large() {
        let workers = WorkerPool::default();
        let _first = all_in_memory(&workers).await;
        let change = async |from, to| {
            let held = KnownRules::Exactly(some(from));
            workers.write(&held, &some(to), true).now_or_never().is_some()
        };
        assert!(change(1000, 1000).await && change(1000, 1064).await);
        assert!(!change(1000, 1065).await && !change(1065, 1000).await);
    }

    #[tokio::test]
    async fn a_backend_that_runs_programs_needs_no_permit() {
        let workers = WorkerPool::default();
        let _first = all_in_memory(&workers).await;
        assert!(workers.write(&NOTHING, &none(), false).now_or_never().is_some());
    }
}
