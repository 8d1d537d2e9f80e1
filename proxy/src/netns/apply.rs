//! Applies the wanted rules to the network namespace of one pod: the only writer of this program besides its reports.
//!
//! Writes: rules, routes and conntrack deletions in the calling thread's namespace. The order keeps a client from ever seeing a
//! packet to a ClusterIP leave untranslated: reject, route, translate; and in reverse order for removals; conntrack last.
//! A second apply writes nothing. A failure affects its own VIP, attachment or endpoint: everything else is applied.
//!
//! | failure | effect |
//! |---|---|
//! | an attachment's interface or address cannot be used | VIPs of that network and family: rejected |
//! | the route lookup of an endpoint fails | that endpoint: no flows |
//! | a VIP cannot be rejected | that VIP: neither routed nor translated |
//! | a route cannot be added | that VIP: rejected |
//! | a VIP cannot be translated | that VIP: rejected, or unchanged if its translation cannot be removed either |
//! | a route cannot be removed | that VIP: still rejected, although no Service has it |
//! | addresses, routes or rules cannot be read | the pod: nothing is written |

mod parts;
mod work;

use crate::backend::{self, Backend, KnownRules};
pub use crate::netns::addresses::Absence;
pub(crate) use crate::netns::addresses::Addresses;
pub use crate::netns::conntrack::Pending;
use crate::netns::failure::{Absent, Effect, Failures};
use crate::netns::routes::Routes;
use crate::netns::{conntrack, reachability, routes};
use api::NetworkRef;
use parts::Step;
use process::error_chain;
use rules::{PodRules, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use work::{Done, Known, Work};

/// Wanted state of a namespace, and the addresses that identify it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Rules.
    pub rules: PodRules,
    /// Addresses of the pod; the namespace must have one of them before anything is written.
    pub addresses: BTreeSet<IpAddr>,
    /// [`Applied::foreign_routes`] of the last apply, if no other process changed a route since: then routes are read only when a managed
    /// route changes. `None`: routes are read.
    pub foreign_routes: Option<BTreeSet<IpAddr>>,
}

/// Result of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Rules of the namespace now.
    pub rules: PodRules,
    /// Rules were written.
    pub written: bool,
    /// Sources that cannot be used at present: their VIPs are rejected.
    pub absent: Vec<Absent>,
    /// Failures.
    pub failures: Failures,
    /// The namespace has exactly `rules`. Otherwise its rules have to be read before the next write.
    pub is_exact: bool,
    /// VIPs to which the pod has a route of its own, which was not changed.
    pub foreign_routes: BTreeSet<IpAddr>,
    /// Parents on the node of macvlan or ipvlan interfaces, by network.
    pub parents: BTreeMap<NetworkRef, u32>,
    /// Endpoints without a route through the interface of their network: they get no flows.
    pub unreachable: BTreeSet<Unreachable>,
    /// Foreign or excess content of our tables and chains, which was replaced without being read.
    pub unread: BTreeSet<String>,
    /// Pending deletions of flows: see [`end_flows`].
    pub pending: Pending,
    /// Error of the deletion of conntrack entries; flows may continue to removed endpoints.
    pub conntrack: Option<String>,
}

impl Applied {
    /// Returns true when the namespace has exactly the wanted rules.
    pub fn is_complete(&self) -> bool {
        self.absent.is_empty() && self.failures.is_empty() && self.conntrack.is_none()
    }
}

/// Error of an apply. The namespace may have a part of the wanted rules: its rules are unknown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The addresses could not be read.
    #[error("failed to read the addresses of the network namespace")]
    Addresses(#[source] io::Error),
    /// The namespace does not belong to the pod.
    #[error("the network namespace has none of the pod's addresses; nothing is written")]
    NotThePod,
    /// Backend.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] routes::Error),
}

/// Applies `wanted` in the namespace of the calling thread. The driver runs the two steps separately: rules of all pods come first.
pub fn apply(backend: &dyn Backend, held: &KnownRules<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    let mut applied = write(backend, held, wanted)?;
    let ended = end_flows(&applied.pending, &applied.rules);
    applied.conntrack = ended.err().map(|error| error.to_string());
    Ok(applied)
}

/// Deletes flows that are stale under `rules`, the current rules of the calling thread's namespace. Takes milliseconds on a node with many
/// flows.
pub fn end_flows(pending: &Pending, rules: &PodRules) -> io::Result<()> {
    conntrack::clean(pending, rules)
}

/// Writes rules and routes, and deletes no flows.
pub fn write(backend: &dyn Backend, held: &KnownRules<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    write_knowing(None, backend, held, wanted).map(|(applied, _)| applied)
}

/// Writes rules and routes with the links and addresses of an earlier attempt, if none changed since. Returns them, too.
pub(crate) fn write_knowing(
    addresses: Option<Arc<Addresses>>,
    backend: &dyn Backend,
    held: &KnownRules<PodRules>,
    wanted: &Wanted,
) -> Result<(Applied, Arc<Addresses>), Error> {
    let mut netlink = routes::socket();
    let addresses = match addresses {
        Some(addresses) => addresses,
        None => Arc::new(Addresses::read(&mut netlink).map_err(Error::Addresses)?),
    };
    if !addresses.hold_any(&wanted.addresses) {
        return Err(Error::NotThePod);
    }
    let named = wanted.rules.with_interfaces(|address| addresses.holder(address));
    let (with_sources, absent) = without_absent(&named, &addresses);
    let is_unknown = matches!(held, KnownRules::Unknown);
    let mut known = Known::read(backend, held)?;
    let unread = known.unread();
    let mut routes = None;
    if !unread.is_empty() {
        // The VIPs that it rejected are unknown. Those that still have a managed route stay rejected during the rebuild.
        let held = Routes::read(&mut netlink)?;
        known.add_rejected(held.vips());
        routes = Some(held);
    }
    let look_at_routes = is_unknown || wanted.foreign_routes.is_none();
    let mut delta = known.delta(&with_sources);
    let lost = reachability::lost(&mut netlink, &addresses, &delta, look_at_routes);
    let reachable;
    if !lost.endpoints.is_empty() {
        reachable = with_sources.without_endpoints(&lost.endpoints);
        delta = known.delta(&reachable);
    }
    let placed = delta.placed();
    if let Some(placed) = &placed {
        delta = known.delta(placed);
    }
    let rules = delta.wanted();
    if routes.is_none() {
        let are_known = !look_at_routes && delta.route.keys().all(|vip| known.has_no_route(*vip));
        routes = if !are_known {
            Some(Routes::read(&mut netlink)?)
        } else if delta.route.is_empty() && delta.unroute.is_empty() {
            None
        } else {
            Some(Routes::as_written())
        };
    }

    let mut work = Work::new(backend, &known, &delta);
    for (endpoint, error) in &lost.unknown {
        let cause = format!("failed to look up the route: {error}");
        work.failures
            .note(Effect::Endpoints, Some(*endpoint), cause, rules);
    }
    work.step(Step::Reject)?;
    let foreign_before = wanted.foreign_routes.clone().unwrap_or_default();
    let foreign_routes = match &mut routes {
        Some(routes) => work.add_routes(routes, &mut netlink, &addresses, foreign_before),
        None => foreign_before,
    };
    work.step(Step::Translate)?;
    if let Some(routes) = &mut routes {
        work.remove_routes(routes, &mut netlink)?;
    }
    work.step(Step::Unreject)?;
    if is_unknown {
        work.clear_others();
    }
    // A pod younger than this process has no flows that are older than its rules.
    let is_young = matches!(held, KnownRules::Nothing);
    let pending = work.pending(is_young);
    let parents = named.networks.iter().filter_map(|(network, attached)| {
        let source = attached.ipv4.as_ref().or(attached.ipv6.as_ref())?;
        Some((network.clone(), addresses.parent_elsewhere(&source.interface)?))
    });
    let Done {
        rules,
        written,
        failures,
        is_exact,
    } = work.done();
    let applied = Applied {
        parents: parents.collect(),
        rules,
        written,
        absent,
        failures,
        is_exact,
        foreign_routes,
        unreachable: lost.endpoints,
        unread,
        pending,
        conntrack: None,
    };
    Ok((applied, addresses))
}

/// Returns the rules with flows of unusable sources rejected, and those sources.
fn without_absent(rules: &PodRules, addresses: &Addresses) -> (PodRules, Vec<Absent>) {
    let (mut absent, mut sources) = (Vec::new(), Vec::new());
    for (network, source) in rules.sources() {
        if let Some(why) = addresses.absence(source) {
            absent.push(Absent::new(network, source, why));
            sources.push(source.clone());
        }
    }
    (rules.without_sources(&sources), absent)
}

/// Removes all rules and routes of `backends` from the namespace of the calling thread, in three stages. Each stage removes as much as
/// possible; the next one begins only when nothing of it is left, because the order keeps flows from leaving untranslated.
pub fn remove(backends: &[&dyn Backend]) -> Result<(), Error> {
    let may_be_there = |backend: &&dyn Backend| backend.is_present().unwrap_or(true);
    let may_have_flows = backends.iter().any(may_be_there);
    all(backends, |backend| backend.remove_translation())?;
    let mut netlink = routes::socket();
    let left = Routes::read(&mut netlink)?.remove_others(&mut netlink, |_| false);
    left.into_values().next().map_or(Ok(()), Err)?;
    all(backends, |backend| backend.remove_rejection())?;
    if may_have_flows && let Err(error) = conntrack::forget_rejected() {
        tracing::warn!(error = %error_chain(&error), "Failed to delete rejected UDP flows; a socket that continues to send stays rejected");
    }
    Ok(())
}

/// Runs `work` with each backend and returns the first error.
fn all(
    backends: &[&dyn Backend],
    work: impl Fn(&dyn Backend) -> Result<(), backend::Error>,
) -> Result<(), Error> {
    let results = backends.iter().map(|backend| work(*backend));
    Ok(results.fold(Ok(()), Result::and)?)
}
