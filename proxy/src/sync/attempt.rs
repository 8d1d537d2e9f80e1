//! One attempt to sync the network namespace of a pod: find the sandbox, enter the namespace, apply the rules.
//!
//! Writes: through `apply`.

mod error;
mod work;

pub(super) use error::Error;

use super::netns_state::{NetnsState, WorkResult};
use super::shared::Shared;
use super::worker_pool::{self, Worker};
use crate::container_runtime::{self, Sandbox};
use crate::index::{HOST_UID, LocalPod};
use crate::netlink::kept_sockets::SocketLease;
use crate::netlink::monitor::NamespaceId;
use crate::netns::apply::{Applied, Wanted};
use crate::netns::{self, Netns};
use rules::PodRules;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::warn;
use work::Work;

/// Time after which an attempt that hangs releases its worker.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the attempt. `netns_state` is valid afterwards, also after a failure.
pub(super) async fn attempt(
    shared: &Shared,
    pod: &LocalPod,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<Applied, Error> {
    let sandbox = match netns_state.sandbox.take() {
        Some(sandbox) => sandbox,
        None if pod.is_host => host_sandbox(),
        None => find_sandbox(shared, pod).await?,
    };
    if sandbox.has_own_stack() {
        let handler = sandbox.runtime_handler.clone();
        netns_state.sandbox = Some(sandbox);
        return Err(Error::OwnStack(handler));
    }
    // Before a worker is taken: an attempt that waits for the lock of a sandbox does not block others.
    let (_sandbox_lock, may_hold) = shared.sandbox_locks.lock(&sandbox).await;
    if netns_state.is_abandoned.load(Ordering::Acquire) {
        return Err(Error::Abandoned);
    }
    netns_state.enter_sandbox(&sandbox, pod.is_host || may_hold);
    let applied = apply_rules(shared, pod, &sandbox, rules, netns_state).await?;
    netns_state.sandbox = Some(sandbox);
    Ok(applied)
}

/// Applies the rules in the namespace of a sandbox whose lock is held.
async fn apply_rules(
    shared: &Shared,
    pod: &LocalPod,
    sandbox: &Sandbox,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<Applied, Error> {
    let in_memory = shared.backend.buffers_whole_ruleset();
    let worker = shared
        .worker_pool
        .write(&netns_state.held, &rules, in_memory)
        .await;
    let per_item = shared.backend.memory_per_item();
    let is_small = worker_pool::is_small(&netns_state.held, &rules);
    let share = shared.memory.share(is_small, &rules, per_item).await?;
    let netns = if pod.is_host {
        Netns::home()?
    } else {
        Netns::open(&sandbox.netns)?
    };
    let is_the_same = SocketLease::acquire(netns_state.lease(), &netns);
    let began = Instant::now();
    let nsid = namespace_id(shared, pod, &netns, netns_state.nsid.filter(|_| is_the_same));
    let known = netns_state.take_known(nsid, is_the_same);
    let work = Work {
        held: known.held,
        known: known.ruleset,
        sets: known.sets,
        wanted: Wanted {
            rules,
            addresses: pod.addresses.clone(),
            foreign_routes: known.foreign_routes,
        },
        addresses: known.addresses,
        share,
    };
    let result = enter(shared, pod, worker, netns, work).await;
    netns_state.took = began.elapsed();
    let applied = netns_state.record(result?);
    let metrics = &shared.reporters.metrics;
    metrics.applied(shared.backend.name(), netns_state.took);
    Ok(applied)
}

/// Returns the id of a namespace for the monitor, if it runs; `known`: the id, if it was assigned before. The node has too many events of
/// its own for the monitor: its routes are compared every 25 s instead.
fn namespace_id(
    shared: &Shared,
    pod: &LocalPod,
    netns: &Netns,
    known: Option<NamespaceId>,
) -> Option<NamespaceId> {
    let namespace_ids = shared.namespace_ids.as_ref().filter(|_| !pod.is_host)?;
    known.or_else(|| namespace_ids.id_of(netns).ok())
}

/// Sandbox of the node itself.
fn host_sandbox() -> Sandbox {
    Sandbox {
        id: HOST_UID.to_owned(),
        netns: PathBuf::from(netns::OWN),
        runtime_handler: String::new(),
    }
}

/// Uses a worker of its own kind: a runtime that hangs does not block attempts that do not need it.
async fn find_sandbox(shared: &Shared, pod: &LocalPod) -> Result<Sandbox, container_runtime::Error> {
    let _worker = shared.worker_pool.ask().await;
    let began = Instant::now();
    let sandbox = shared.sandboxes.of_pod(&pod.runtime_uid, &pod.name).await;
    shared.reporters.metrics.looked_up(began.elapsed());
    sandbox
}

async fn enter(
    shared: &Shared,
    pod: &LocalPod,
    worker: Worker,
    netns: Netns,
    work: Work,
) -> Result<WorkResult, Error> {
    let backend = Arc::clone(&shared.backend);
    // The thread owns the share of memory and returns it when it ends, even if the wait for it has timed out.
    let work = move || work.write(backend.as_ref());
    let mut receiver = netns.spawn(work)?;
    let in_time = tokio::time::timeout(PATIENCE, &mut receiver).await;
    let result = if let Ok(result) = in_time {
        result
    } else {
        // The thread cannot be cancelled. The pod waits for it; other pods do not.
        warn!(pod = %pod.name, seconds = PATIENCE.as_secs(), "Operation in the network namespace is stuck");
        drop(worker);
        // The receiver is dropped at shutdown.
        let _ = shared.stuck.send(pod.uid.clone());
        receiver.await
    };
    result.map_err(|_| Error::Lost)??
}
