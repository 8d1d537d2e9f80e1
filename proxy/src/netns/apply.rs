//! Brings one pod's network namespace to what is wanted: the only writer of this program besides events.
//!
//! Writes: rules, routes and conntrack deletions in the calling thread's namespace. The order keeps a client from ever seeing a
//! packet to a ClusterIP leave untranslated: reject, route, translate; and the other way round for what goes; conntrack last.
//! Doing it twice writes nothing. What fails harms its own VIP, attachment or endpoint: the rest is brought to what is wanted.
//!
//! | what fails | what it harms |
//! |---|---|
//! | an attachment's interface or address cannot be used | VIPs of that network and family: rejected |
//! | the kernel does not say whether an endpoint is reached | that endpoint: no flows |
//! | a VIP cannot be rejected | that VIP: neither routed nor translated |
//! | a route cannot be added | that VIP: rejected |
//! | a VIP cannot be translated | that VIP: rejected, or unchanged if it cannot even be translated no more |
//! | a route cannot be removed | that VIP: rejected although nobody has it |
//! | addresses or routes cannot be read, nor rules | the pod: nothing can be decided, nothing is written |

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
use rules::{PodRules, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use work::{Done, Known, Work};

/// What a namespace should hold, and how to know that it is the right one.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The rules.
    pub rules: PodRules,
    /// Addresses of the pod, one of which the namespace must hold before anything is written into it.
    pub addresses: BTreeSet<IpAddr>,
    /// [`Applied::foreign_routes`] of the last time, if nobody is known to have changed a route since: then routes are read only when
    /// one of ours changes. `None`: they are looked at.
    pub foreign_routes: Option<BTreeSet<IpAddr>>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the namespace holds now.
    pub rules: PodRules,
    /// Whether rules were written.
    pub written: bool,
    /// Sources that cannot be used, or not yet: their VIPs are rejected.
    pub absent: Vec<Absent>,
    /// What could not be written.
    pub failures: Failures,
    /// Whether the namespace holds exactly `rules`. Otherwise it has to be read before anything is written again.
    pub is_exact: bool,
    /// VIPs to which the pod has a route of its own, which was left alone.
    pub foreign_routes: BTreeSet<IpAddr>,
    /// Interfaces of the node that those on a network are on, if they are macvlan or ipvlan interfaces.
    pub parents: BTreeMap<NetworkRef, u32>,
    /// Endpoints that the namespace has no way to by the interface of their network: they get no flows.
    pub unreachable: BTreeSet<Unreachable>,
    /// What was found where our rules are and not read, because it is not ours or more than is wanted: it is gone.
    pub unread: BTreeSet<String>,
    /// Where flows may be that have to be ended: see [`end_flows`].
    pub pending: Pending,
    /// Why conntrack entries could not be deleted, or not all; flows may go on to removed endpoints.
    pub conntrack: Option<String>,
}

impl Applied {
    /// Whether all that was wanted is there, and nothing else.
    pub fn is_complete(&self) -> bool {
        self.absent.is_empty() && self.failures.is_empty() && self.conntrack.is_none()
    }
}

/// Why nothing could be decided. The namespace may hold a part of what is wanted: nothing is known any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be read.
    #[error("failed to read the addresses of the network namespace")]
    Addresses(#[source] io::Error),
    /// The namespace is another one than the pod says.
    #[error("the network namespace holds none of the pod's addresses: it is not written into")]
    NotThePod,
    /// Rules.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] routes::Error),
}

/// Does it, in the namespace of the calling thread. The driver takes the two steps apart: rules of all pods come first.
pub fn apply(backend: &dyn Backend, held: &KnownRules<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    let mut applied = write(backend, held, wanted)?;
    let ended = end_flows(&applied.pending, &applied.rules);
    applied.conntrack = ended.err().map(|error| error.to_string());
    Ok(applied)
}

/// Ends flows that are wrong under `rules`, which the namespace of the calling thread has. Costs milliseconds on a node with many flows.
pub fn end_flows(pending: &Pending, rules: &PodRules) -> io::Result<()> {
    conntrack::clean(pending, rules)
}

/// Writes rules and routes, and ends no flows.
pub fn write(backend: &dyn Backend, held: &KnownRules<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    write_knowing(None, backend, held, wanted).map(|(applied, _)| applied)
}

/// The same where the links and addresses may be known: those of an earlier attempt, if none changed since. Returns them, too.
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
        // The VIPs that it rejected are unknown. Those that still have a route of ours stay rejected during the rebuild.
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
        let cause = format!("failed to ask for the route to them: {error}");
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
    // A pod younger than this process has had no time for connections to what its VIPs were before.
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

/// The same rules where flows by sources that cannot be used are rejected, and those sources.
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

/// Removes everything of ours from the namespace of the calling thread, whichever of `backends` wrote it. Of each of the three stages as
/// much as can be is done; a stage is begun when nothing is left of the one before, for the order keeps flows from leaving untranslated.
pub fn remove(backends: &[&dyn Backend]) -> Result<(), Error> {
    let may_be_there = |backend: &&dyn Backend| backend.is_present().unwrap_or(true);
    let may_have_flows = backends.iter().any(may_be_there);
    all(backends, |backend| backend.remove_translation())?;
    let mut netlink = routes::socket();
    let left = Routes::read(&mut netlink)?.remove_others(&mut netlink, |_| false);
    left.into_values().next().map_or(Ok(()), Err)?;
    all(backends, |backend| backend.remove_rejection())?;
    if may_have_flows && let Err(error) = conntrack::forget_rejected() {
        tracing::warn!(%error, "cannot end rejected UDP flows: a socket that goes on sending stays rejected");
    }
    Ok(())
}

/// Does it with each, and returns the first error.
fn all(
    backends: &[&dyn Backend],
    work: impl Fn(&dyn Backend) -> Result<(), backend::Error>,
) -> Result<(), Error> {
    let results = backends.iter().map(|backend| work(*backend));
    Ok(results.fold(Ok(()), Result::and)?)
}
