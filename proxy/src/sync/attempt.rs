//! One attempt to sync the network namespace of a pod: find the sandbox, enter the namespace, apply the rules.
//!
//! Writes: through `apply`.

use crate::backend::{Backend, KnownRules};
use crate::container_runtime::{self, Sandbox};
use crate::index::{HOST_UID, LocalPod};
use crate::netlink::generation::{generation, own_generation};
use crate::netlink::monitor::NamespaceId;
use crate::netlink::netfilter::SocketLease;
use crate::netns::apply::{self, Addresses, Applied, Wanted, write_knowing};
use crate::netns::memory::{NoMemory, Share};
use crate::netns::{self, Netns};
use crate::sync::Context;
use crate::sync::worker_pool::{self, Worker};
use process::error_chain;
use rules::PodRules;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// Time after which an attempt that hangs releases its worker.
const PATIENCE: Duration = Duration::from_secs(20);

/// Network namespace of a pod, and what it is known to contain.
#[derive(Debug, Default)]
pub(super) struct NetnsState {
    /// `None`: to be requested from the container runtime.
    pub(super) sandbox: Option<Sandbox>,
    /// Id of the sandbox that `held` describes.
    id: Option<String>,
    pub(super) held: KnownRules<PodRules>,
    /// Foreign routes of the last attempt; `None`: routes have to be read.
    foreign_routes: Option<BTreeSet<IpAddr>>,
    /// Links and addresses of the last attempt; `None`: they have to be read.
    addresses: Option<Arc<Addresses>>,
    /// Time of the last check of routes.
    routes_checked_at: Option<Instant>,
    /// Namespace id for the netlink monitor, if it runs.
    pub(super) nsid: Option<NamespaceId>,
    /// Version of the rules after the last write.
    ruleset: RulesetVersion,
    /// Another process wrote at the same time: its transactions cannot be distinguished from ours afterwards.
    pub(super) is_disturbed: bool,
    /// Duration of the last attempt in the namespace.
    pub(super) took: Duration,
    /// Lease of the sockets that are kept open in the namespace.
    lease: Option<SocketLease>,
    /// The pod is deleted: its sandbox may belong to another pod by now.
    pub(super) is_abandoned: Arc<AtomicBool>,
}

/// Version of the rules, by which a change is noticed without reading them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RulesetVersion {
    /// Generation of the nftables ruleset.
    generation: Option<u32>,
    /// See [`Backend::fingerprint`].
    fingerprint: Option<u64>,
}

/// Result of the work in a namespace.
struct WorkResult {
    applied: Applied,
    addresses: Arc<Addresses>,
    ruleset: RulesetVersion,
    is_disturbed: bool,
}

impl NetnsState {
    /// Returns the id of the sandbox of the last attempt.
    pub(super) fn sandbox_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns true when this process never wrote into the namespace.
    pub(super) fn is_untouched(&self) -> bool {
        self.id.is_none()
    }

    /// Returns the time of the last comparison of routes with the kernel.
    pub(super) fn routes_checked_at(&self) -> Option<Instant> {
        self.routes_checked_at
    }

    /// Makes the next attempt read routes, links and addresses from the kernel.
    pub(super) fn forget_routes(&mut self) {
        self.foreign_routes = None;
        self.addresses = None;
    }

    /// Records that anything in the namespace may have changed. Rules with a generation stay known, since the generation shows a change:
    /// reading the rules of every pod after an overrun would take seconds.
    pub(super) fn invalidate(&mut self) {
        if self.ruleset.generation.is_none() {
            self.held = KnownRules::Unknown;
        }
    }

    /// Returns the path of the namespace and the generation of its rules at the last attempt; `None`: unknown.
    pub(super) fn generation(&self) -> Option<(PathBuf, u32)> {
        let sandbox = self.sandbox.as_ref()?;
        Some((sandbox.netns.clone(), self.ruleset.generation?))
    }

    /// Switches to a recreated sandbox: its namespace contains no rules unless another process wrote into it before.
    fn enter_sandbox(&mut self, sandbox: &Sandbox, may_hold: bool) {
        if self.id.as_ref() != Some(&sandbox.id) {
            self.id = Some(sandbox.id.clone());
            self.held = if may_hold {
                KnownRules::Unknown
            } else {
                KnownRules::Nothing
            };
            self.nsid = None;
            self.forget_routes();
        }
    }
}

/// Reason for a failed attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Sandbox(#[from] container_runtime::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// Connection tracking.
    #[error(transparent)]
    Flows(std::io::Error),
    /// Rules would not apply to packets of the pod.
    #[error(
        "runtime handler {0:?} gives the pod a network stack of its own (gVisor, Kata), to which rules do not apply: its flows to ClusterIPs are not served"
    )]
    OwnStack(String),
    /// The thread panicked; the namespace may hold anything.
    #[error("the work in the network namespace ended without a result")]
    Lost,
    /// The pod is deleted; a recreated one has another UID.
    #[error("the pod is deleted")]
    Abandoned,
}

impl Error {
    /// Returns the error of the container runtime, if that is the cause.
    pub(super) fn runtime_error(&self) -> Option<String> {
        match self {
            Self::Sandbox(
                error @ (container_runtime::Error::NoRuntime(_) | container_runtime::Error::Runtime(_)),
            ) => Some(error_chain(error)),
            _ => None,
        }
    }

    /// Returns true when the cause is in the namespace, which the owner of the pod can influence.
    pub(super) fn is_netns_fault(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Returns true when the namespace has no address of the pod yet.
    pub(super) fn is_unidentified(&self) -> bool {
        matches!(self, Self::Apply(apply::Error::NotThePod))
    }

    /// Returns true when a retry in the same sandbox cannot succeed.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::OwnStack(_))
    }

    /// Returns true when the pod has no network namespace at present.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Sandbox(container_runtime::Error::NotReady) | Self::Netns(netns::Error::Gone { .. })
        )
    }
}

/// Makes the attempt. `netns_state` is valid afterwards, also after a failure.
pub(super) async fn attempt(
    context: &Context,
    pod: &LocalPod,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<Applied, Error> {
    let sandbox = match netns_state.sandbox.take() {
        Some(sandbox) => sandbox,
        None if pod.is_host => host_sandbox(),
        None => find_sandbox(context, pod).await?,
    };
    if sandbox.has_own_stack() {
        let handler = sandbox.runtime_handler.clone();
        netns_state.sandbox = Some(sandbox);
        return Err(Error::OwnStack(handler));
    }
    // Before a worker is taken: an attempt that waits for the lock of a sandbox does not block others.
    let (_sandbox_lock, may_hold) = context.sandbox_locks.lock(&sandbox).await;
    if netns_state.is_abandoned.load(Ordering::Acquire) {
        return Err(Error::Abandoned);
    }
    netns_state.enter_sandbox(&sandbox, pod.is_host || may_hold);
    let in_memory = context.backend.buffers_whole_ruleset();
    let worker = context
        .worker_pool
        .write(&netns_state.held, &rules, in_memory)
        .await;
    let per_item = context.backend.memory_per_item();
    let is_small = worker_pool::is_small(&netns_state.held, &rules);
    let share = context.memory.share(is_small, &rules, per_item).await?;
    let netns = if pod.is_host {
        Netns::home()?
    } else {
        Netns::open(&sandbox.netns)?
    };
    let is_the_same = SocketLease::acquire(&mut netns_state.lease, &netns);
    // The rules are unknown until the attempt succeeds.
    let held = std::mem::take(&mut netns_state.held);
    let wanted = Wanted {
        rules,
        addresses: pod.addresses.clone(),
        foreign_routes: netns_state.foreign_routes.take(),
    };
    let began = Instant::now();
    if wanted.foreign_routes.is_none() {
        netns_state.routes_checked_at = Some(began);
    }
    // The node has too many events of its own for the monitor: its routes are compared every 25 s instead.
    let namespace_ids = context.namespace_ids.as_ref().filter(|_| !pod.is_host);
    let nsid = netns_state.nsid.filter(|_| is_the_same);
    let nsid = namespace_ids.and_then(|namespace_ids| nsid.or_else(|| namespace_ids.id_of(&netns).ok()));
    (netns_state.is_disturbed, netns_state.nsid) = (false, nsid);
    // Links and addresses without notifications are read each time.
    let is_monitored = nsid.is_some() && is_the_same && wanted.foreign_routes.is_some();
    let addresses = netns_state.addresses.take().filter(|_| is_monitored);
    let known = std::mem::take(&mut netns_state.ruleset);
    let work = Work {
        held,
        known,
        wanted,
        addresses,
        share,
    };
    let written = enter(context, pod, worker, netns, work).await;
    netns_state.took = began.elapsed();
    let written = written?;
    let applied = written.applied;
    netns_state.ruleset = written.ruleset;
    netns_state.is_disturbed = written.is_disturbed;
    context
        .reporters
        .metrics
        .applied(context.backend.name(), netns_state.took);
    if !netns_state.is_disturbed && applied.is_exact {
        netns_state.held = KnownRules::Exactly(applied.rules.clone());
        if applied.failures.is_empty() {
            netns_state.foreign_routes = Some(applied.foreign_routes.clone());
            let are_usable = applied.absent.is_empty() && written.addresses.are_few();
            netns_state.addresses = Some(written.addresses).filter(|_| are_usable);
        }
    }
    netns_state.sandbox = Some(sandbox);
    Ok(applied)
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
async fn find_sandbox(context: &Context, pod: &LocalPod) -> Result<Sandbox, container_runtime::Error> {
    let _worker = context.worker_pool.ask().await;
    context.sandboxes.of_pod(&pod.runtime_uid, &pod.name).await
}

async fn enter(
    context: &Context,
    pod: &LocalPod,
    worker: Worker,
    netns: Netns,
    work: Work,
) -> Result<WorkResult, Error> {
    let backend = Arc::clone(&context.backend);
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
        let _ = context.stuck.send(pod.uid.clone());
        receiver.await
    };
    result.map_err(|_| Error::Lost)??
}

/// Work of a thread in a namespace.
struct Work {
    held: KnownRules<PodRules>,
    /// Version that `held` describes; with another version the rules are unknown.
    known: RulesetVersion,
    wanted: Wanted,
    /// Links and addresses, if known.
    addresses: Option<Arc<Addresses>>,
    share: Share,
}

impl Work {
    fn write(mut self, backend: &dyn Backend) -> Result<WorkResult, Error> {
        self.share.spend();
        let (known, before) = (self.known, generation());
        let is_known = (known.generation.is_none() || known.generation == before)
            && (known.fingerprint.is_none() || known.fingerprint == backend.fingerprint());
        if !is_known {
            self.held = KnownRules::Unknown;
            self.share.grow()?;
        }
        let (applied, addresses) = write_knowing(self.addresses, backend, &self.held, &self.wanted)?;
        let generation = generation();
        let is_as_before = is_known && !applied.written;
        let fingerprint = known
            .fingerprint
            .filter(|_| is_as_before)
            .or_else(|| backend.fingerprint());
        Ok(WorkResult {
            applied,
            addresses,
            ruleset: RulesetVersion {
                generation,
                fingerprint,
            },
            is_disturbed: generation != own_generation(before),
        })
    }
}
