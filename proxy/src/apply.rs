//! Brings one pod's network namespace to what is wanted: the only writer of this program besides events.
//!
//! Writes: rules, routes and conntrack deletions in the calling thread's namespace. The order keeps a client from ever seeing a
//! packet to a ClusterIP leave untranslated: refuse, route, translate; and the other way round for what goes; conntrack last.
//! Doing it twice writes nothing.

use crate::addresses::Addresses;
use crate::backend::{self, Backend, Held};
use crate::netlink::Netlink;
use crate::routes::Routes;
use crate::{conntrack, netns, original, reach, routes};
use api::NetworkRef;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::{Delta, Dump, PodRules, Source, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

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
    /// Sources that the namespace does not hold, or not yet: their VIPs are refused.
    pub absent: Vec<Source>,
    /// VIPs to which the pod has a route of its own, which was left alone.
    pub foreign_routes: BTreeSet<IpAddr>,
    /// Interfaces of the node that those on a network are on, if they are macvlan or ipvlan interfaces.
    pub parents: BTreeMap<NetworkRef, u32>,
    /// Endpoints that the namespace has no way to by the interface of their network: they get no flows.
    pub unreachable: BTreeSet<Unreachable>,
    /// What was found where our rules are and not read, because it is not ours or more than is wanted: it is gone.
    pub unread: BTreeSet<String>,
    /// Why conntrack entries could not be deleted, or not all; flows may go on to removed endpoints.
    pub conntrack: Option<String>,
}

/// Why it was not done. The namespace may hold a part of it: nothing is known any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be read.
    #[error("failed to read the addresses of the network namespace")]
    Addresses(#[source] io::Error),
    /// The ways to endpoints cannot be read.
    #[error("failed to ask for the routes to endpoints")]
    Reach(#[source] io::Error),
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

/// Does it, in the namespace of the calling thread.
pub fn apply(backend: &dyn Backend, held: &Held<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    let mut netlink: Netlink<RouteNetlinkMessage> = Netlink::open(NETLINK_ROUTE).map_err(Error::Addresses)?;
    let addresses = Addresses::read(&mut netlink).map_err(Error::Addresses)?;
    if !addresses.hold_any(&wanted.addresses) {
        return Err(Error::NotThePod);
    }
    let absent: Vec<Source> = wanted
        .rules
        .sources()
        .filter(|source| !addresses.hold(source))
        .cloned()
        .collect();
    let with_sources = wanted.rules.without_sources(&absent);
    let is_unknown = matches!(held, Held::Unknown);
    let mut read = is_unknown.then(|| backend.dump()).transpose()?;
    let mut routes = None;
    if let Some(dump) = read.as_mut().filter(|dump| !dump.unread.is_empty()) {
        // The VIPs that it refused are unknown. Those that still have a route of ours stay refused during the rebuild.
        let held = Routes::read(&mut netlink)?;
        dump.refused.extend(held.vips());
        routes = Some(held);
    }
    let look_at_routes = is_unknown || wanted.foreign_routes.is_none();
    let mut delta = difference(held, read.as_ref(), &with_sources);
    let unreachable =
        reach::unreachable(&mut netlink, &addresses, &delta, look_at_routes).map_err(Error::Reach)?;
    let reachable;
    if !unreachable.is_empty() {
        reachable = with_sources.without_endpoints(&unreachable);
        delta = difference(held, read.as_ref(), &reachable);
    }
    let rules = delta.wanted();
    let changes_routes = look_at_routes || !delta.route.is_empty() || !delta.unroute.is_empty();
    if changes_routes && routes.is_none() {
        routes = Some(Routes::read(&mut netlink)?);
    }

    let refuses = delta.is_rebuild() || !delta.refuse.is_empty();
    if refuses {
        backend.refuse(&delta)?;
    }
    let foreign_routes = match &mut routes {
        Some(routes) => routes.add(&mut netlink, &addresses, &rules.routes())?,
        None => wanted.foreign_routes.clone().unwrap_or_default(),
    };
    let translates = delta.is_rebuild() || !delta.ports.is_empty() || !delta.renamed.is_empty();
    if translates {
        backend.translate(&delta)?;
    }
    if let Some(routes) = &mut routes {
        routes.remove_others(&mut netlink, &rules.routes())?;
    }
    if !delta.release.is_empty() {
        backend.release(&delta)?;
    }
    if is_unknown {
        backend.replace_others()?;
        // It wrote into pods only.
        if !netns::is_home() {
            original::remove()?;
        }
    }
    let written = refuses || translates || !delta.release.is_empty();
    // A pod younger than this process has had no time for connections to what its VIPs were before, and to look costs milliseconds: all
    // buckets of the machine's one table.
    let nobody = BTreeSet::new();
    let is_young = matches!(held, Held::Nothing);
    let new = if is_young { &nobody } else { &delta.refuse };
    let conntrack = conntrack::forget(&delta.flows, new)
        .err()
        .map(|error| error.to_string());
    let parents = wanted.rules.networks.iter().filter_map(|(network, attached)| {
        let source = attached.ipv4.as_ref().or(attached.ipv6.as_ref())?;
        Some((network.clone(), addresses.parent_elsewhere(&source.interface)?))
    });
    Ok(Applied {
        parents: parents.collect(),
        rules: rules.clone(),
        written,
        absent,
        foreign_routes,
        unreachable,
        unread: read.as_ref().map(|dump| dump.unread.clone()).unwrap_or_default(),
        conntrack,
    })
}

fn difference<'a>(held: &'a Held<PodRules>, read: Option<&'a Dump>, wanted: &'a PodRules) -> Delta<'a> {
    match (held, read) {
        (Held::Exactly(held), _) => Delta::between(held, wanted),
        (_, Some(read)) => Delta::from_dump(read, wanted),
        _ => Delta::from_nothing(wanted),
    }
}

/// Removes everything of ours from the namespace of the calling thread, whichever of `backends` wrote it.
pub fn remove(backends: &[&dyn Backend]) -> Result<(), Error> {
    for backend in backends {
        backend.remove_translation()?;
    }
    let mut netlink: Netlink<RouteNetlinkMessage> = Netlink::open(NETLINK_ROUTE).map_err(Error::Addresses)?;
    Routes::read(&mut netlink)?.remove_others(&mut netlink, &BTreeMap::new())?;
    for backend in backends {
        backend.remove_refusal()?;
    }
    Ok(())
}
