//! Writes rules and routes.
//!
//! Writes: rules and routes in the calling thread's namespace. Reads links, addresses, routes and rules that are not known.

use super::parts::Step;
use super::work::{Done, Known, Work};
use super::{Addresses, Applied, Error, Wanted};
use crate::backend::{Backend, KnownRules};
use crate::netlink::Netlink;
use crate::netns::failure::{Absent, Effect};
use crate::netns::routes::Routes;
use crate::netns::{reachability, routes};
use api::NetworkRef;
use netlink_packet_route::RouteNetlinkMessage;
use rules::{Delta, PodRules};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

type Socket = Netlink<RouteNetlinkMessage>;

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
    let rebuilt_from = routes_of_rebuild(&mut known, &unread, &mut netlink)?;
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
    let mut routes = match rebuilt_from {
        Some(routes) => Some(routes),
        None => routes_of_change(&known, &delta, look_at_routes, &mut netlink)?,
    };

    let mut work = Work::new(backend, &known, &delta);
    for (endpoint, error) in &lost.unknown {
        let cause = format!("failed to look up the route: {error}");
        work.failures
            .note(Effect::Endpoints, Some(*endpoint), cause, delta.wanted());
    }
    let foreign_before = wanted.foreign_routes.clone().unwrap_or_default();
    let foreign_routes = write_steps(&mut work, &mut routes, &mut netlink, &addresses, foreign_before)?;
    if is_unknown {
        work.clear_others();
    }
    // A pod younger than this process has no flows that are older than its rules.
    let is_young = matches!(held, KnownRules::Nothing);
    let pending = work.pending(is_young);
    let Done {
        rules,
        written,
        failures,
        is_exact,
    } = work.done();
    let applied = Applied {
        parents: parents(&named, &addresses),
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

/// Reads the routes before a rebuild of tables whose content was not read. `None`: it was.
fn routes_of_rebuild(
    known: &mut Known,
    unread: &BTreeSet<String>,
    netlink: &mut Socket,
) -> Result<Option<Routes>, Error> {
    if unread.is_empty() {
        return Ok(None);
    }
    // The VIPs that it rejected are unknown. Those that still have a managed route stay rejected during the rebuild.
    let held = Routes::read(netlink)?;
    known.add_rejected(held.vips());
    Ok(Some(held))
}

/// Returns the routes to change. `None`: there are none.
fn routes_of_change(
    known: &Known,
    delta: &Delta,
    look_at_routes: bool,
    netlink: &mut Socket,
) -> Result<Option<Routes>, Error> {
    let are_known = !look_at_routes && delta.route.keys().all(|vip| known.has_no_route(*vip));
    Ok(if !are_known {
        Some(Routes::read(netlink)?)
    } else if delta.route.is_empty() && delta.unroute.is_empty() {
        None
    } else {
        Some(Routes::as_written())
    })
}

/// Writes rules and routes in the order that keeps flows from leaving untranslated; returns the foreign routes.
fn write_steps(
    work: &mut Work,
    routes: &mut Option<Routes>,
    netlink: &mut Socket,
    addresses: &Addresses,
    foreign_before: BTreeSet<IpAddr>,
) -> Result<BTreeSet<IpAddr>, Error> {
    work.step(Step::Reject)?;
    let foreign_routes = match routes {
        Some(routes) => work.add_routes(routes, netlink, addresses, foreign_before),
        None => foreign_before,
    };
    work.step(Step::Translate)?;
    if let Some(routes) = routes {
        work.remove_routes(routes, netlink)?;
    }
    work.step(Step::Unreject)?;
    Ok(foreign_routes)
}

/// Returns the parents on the node of macvlan or ipvlan interfaces, by network.
fn parents(rules: &PodRules, addresses: &Addresses) -> BTreeMap<NetworkRef, u32> {
    let parents = rules.networks.iter().filter_map(|(network, attached)| {
        let source = attached.ipv4.as_ref().or(attached.ipv6.as_ref())?;
        Some((network.clone(), addresses.parent_elsewhere(&source.interface)?))
    });
    parents.collect()
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
