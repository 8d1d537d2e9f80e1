//! One attempt to bring one pod's namespace to what is wanted: find the sandbox, enter, apply.
//!
//! Writes: through `apply`.

use crate::backend::{Backend, KnownRules};
use crate::container_runtime::{self, Sandbox};
use crate::index::{HOST_UID, LocalPod};
use crate::netlink::generation::{generation, own_generation};
use crate::netlink::monitor::NamespaceId;
use crate::netlink::netfilter::SocketLease;
use crate::netns::apply::{self, Addresses, Applied, Wanted, write_knowing};
use crate::netns::failure::chain;
use crate::netns::memory::{NoMemory, Share};
use crate::netns::{self, Netns};
use crate::sync::Context;
use crate::sync::worker_pool::{self, Worker};
use rules::PodRules;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// A namespace that hangs gives its worker back after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a pod's rules are, and what is there.
#[derive(Debug, Default)]
pub(super) struct NetnsState {
    /// `None`: the runtime has to be asked.
    pub(super) sandbox: Option<Sandbox>,
    /// The sandbox that `held` is about.
    id: Option<String>,
    pub(super) held: KnownRules<PodRules>,
    /// Of the last attempt, unless routes have to be looked at.
    foreign_routes: Option<BTreeSet<IpAddr>>,
    /// Links and addresses of the last attempt, unless they have to be looked at.
    addresses: Option<Arc<Addresses>>,
    /// When routes were looked at last.
    routes_checked_at: Option<Instant>,
    /// Its id for the monitor, if there is one.
    pub(super) nsid: Option<NamespaceId>,
    /// What the rules looked like after the last write.
    ruleset: RulesetVersion,
    /// Whether somebody else wrote at the same time: his transactions cannot be told from ours afterwards.
    pub(super) is_disturbed: bool,
    /// How long the last attempt took in the namespace.
    pub(super) took: Duration,
    /// To the sockets that are kept open there.
    lease: Option<SocketLease>,
    /// Whether the pod is gone: its sandbox may be another's by now.
    pub(super) is_abandoned: Arc<AtomicBool>,
}

/// How to know rules again without reading them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RulesetVersion {
    /// Of nftables.
    generation: Option<u32>,
    /// See [`Backend::fingerprint`].
    fingerprint: Option<u64>,
}

/// What the work in a namespace came to.
struct WorkResult {
    applied: Applied,
    addresses: Arc<Addresses>,
    ruleset: RulesetVersion,
    is_disturbed: bool,
}

impl NetnsState {
    /// The sandbox it was last.
    pub(super) fn sandbox_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether this process never wrote here.
    pub(super) fn is_untouched(&self) -> bool {
        self.id.is_none()
    }

    /// When routes were compared with the kernel last.
    pub(super) fn routes_checked_at(&self) -> Option<Instant> {
        self.routes_checked_at
    }

    /// Has the next attempt compare routes, links and addresses with the kernel, too.
    pub(super) fn forget_routes(&mut self) {
        self.foreign_routes = None;
        self.addresses = None;
    }

    /// Takes note that somebody may have changed anything. Rules that have their generation still are known all the same: to read those
    /// of each pod because one changed more than could be told would take seconds.
    pub(super) fn invalidate(&mut self) {
        if self.ruleset.generation.is_none() {
            self.held = KnownRules::Unknown;
        }
    }

    /// Where rules are, and the generation that they had when this process looked at them last; `None`: not known.
    pub(super) fn generation(&self) -> Option<(PathBuf, u32)> {
        let sandbox = self.sandbox.as_ref()?;
        Some((sandbox.netns.clone(), self.ruleset.generation?))
    }

    /// A recreated sandbox has another namespace, with nothing of ours unless somebody wrote into it before.
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

/// Why an attempt failed.
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
    /// Of connection tracking.
    #[error(transparent)]
    Flows(std::io::Error),
    /// Rules would not reach its packets.
    #[error(
        "runtime handler {0:?} gives the pod a network stack of its own (gVisor, Kata): its flows to ClusterIPs are not served"
    )]
    OwnStack(String),
    /// The thread panicked; the namespace may hold anything.
    #[error("the work in the network namespace ended without a result")]
    Lost,
    /// What comes after it has another UID.
    #[error("the pod is gone")]
    Abandoned,
}

impl Error {
    /// What the container runtime did not do, if it is at fault.
    pub(super) fn runtime_error(&self) -> Option<String> {
        match self {
            Self::Sandbox(
                error @ (container_runtime::Error::NoRuntime(_) | container_runtime::Error::Runtime(_)),
            ) => Some(chain(error)),
            _ => None,
        }
    }

    /// Whether the namespace itself made trouble, as its owner can.
    pub(super) fn is_netns_fault(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Whether there is nothing yet by which the namespace could be known.
    pub(super) fn is_unidentified(&self) -> bool {
        matches!(self, Self::Apply(apply::Error::NotThePod))
    }

    /// Whether it stays so as long as the sandbox is there.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::OwnStack(_))
    }

    /// Whether it only says that the pod has no namespace, now.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Sandbox(container_runtime::Error::NotReady) | Self::Netns(netns::Error::Gone { .. })
        )
    }
}

/// Makes the attempt. `netns_state` says what is known afterwards, also after a failure.
pub(super) async fn attempt(
    context: &Context,
    pod: &LocalPod,
    rules: PodRules,
    netns_state: &mut NetnsState,
) -> Result<Applied, Error> {
    let sandbox = match netns_state.sandbox.take() {
        Some(sandbox) => sandbox,
        None if pod.is_host => the_node(),
        None => ask_the_runtime(context, pod).await?,
    };
    if sandbox.has_own_stack() {
        let handler = sandbox.runtime_handler.clone();
        netns_state.sandbox = Some(sandbox);
        return Err(Error::OwnStack(handler));
    }
    // Before a worker is taken: whoever waits for another's turn keeps nobody waiting.
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
    // Until it succeeds nothing is known.
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
    // The node has too many events of its own to listen to: its routes are compared every 25 s instead.
    let namespace_ids = context.namespace_ids.as_ref().filter(|_| !pod.is_host);
    let nsid = netns_state.nsid.filter(|_| is_the_same);
    let nsid = namespace_ids.and_then(|namespace_ids| nsid.or_else(|| namespace_ids.id_of(&netns).ok()));
    (netns_state.is_disturbed, netns_state.nsid) = (false, nsid);
    // Of which the kernel tells no changes are read each time.
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

/// The sandbox of those that have none.
fn the_node() -> Sandbox {
    Sandbox {
        id: HOST_UID.to_owned(),
        netns: PathBuf::from(netns::OWN),
        runtime_handler: String::new(),
    }
}

/// Without a worker: a runtime that hangs keeps waiting whoever needs it, and nobody else.
async fn ask_the_runtime(context: &Context, pod: &LocalPod) -> Result<Sandbox, container_runtime::Error> {
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
    // The share goes with the thread: it is given back when the thread ends, even if the wait for it has timed out.
    let work = move || work.write(backend.as_ref());
    let mut receiver = netns.spawn(work)?;
    let in_time = tokio::time::timeout(PATIENCE, &mut receiver).await;
    let result = if let Ok(result) = in_time {
        result
    } else {
        // The thread cannot be ended from outside. The pod waits for it; the other pods do not.
        warn!(pod = %pod.name, seconds = PATIENCE.as_secs(), "Work in the network namespace hangs");
        drop(worker);
        // Nobody monitor_started any more when the process stops.
        let _ = context.stuck.send(pod.uid.clone());
        receiver.await
    };
    result.map_err(|_| Error::Lost)??
}

/// What a thread does in a namespace.
struct Work {
    held: KnownRules<PodRules>,
    /// What `held` is about: rules that look otherwise are not believed to be those.
    known: RulesetVersion,
    wanted: Wanted,
    /// If they are known.
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
