//! Reachability of endpoints from a namespace through the interface of the Service's network.
//!
//! Reads only. A packet to an endpoint in another subnet would leave through any route that matches, often eth0's default route: to another
//! pod, or to no host. Such an endpoint is reported and gets no flows.

use crate::netlink::Netlink;
use crate::netns::addresses::Addresses;
use api::Family;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rules::{Delta, PodRules, Source, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

type Socket = Netlink<RouteNetlinkMessage>;

/// Returns the unreachable endpoints among those that are new in `delta`; among all wanted ones with `look_at_all`, when routes may have
/// changed. An endpoint that was left out before is new each time.
pub(crate) fn lost(
    netlink: &mut Socket,
    addresses: &Addresses,
    delta: &Delta<'_>,
    look_at_all: bool,
) -> Lost {
    let mut lost = Lost::default();
    let far = if look_at_all {
        off_subnet_endpoints(netlink, addresses, all(delta.wanted()), &mut lost)
    } else {
        off_subnet_endpoints(netlink, addresses, new(delta), &mut lost)
    };
    for (source, endpoint) in far {
        if !lost.is_reached(netlink, addresses, source, endpoint) {
            lost.endpoints.insert(Unreachable {
                source: source.clone(),
                endpoint,
            });
        }
    }
    lost
}

/// Endpoints that get no flows.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// All unreachable endpoints.
    pub(crate) endpoints: BTreeSet<Unreachable>,
    /// Endpoints for which the route lookup failed, with the error.
    pub(crate) unknown: BTreeMap<IpAddr, io::Error>,
}

impl Lost {
    /// An endpoint whose route lookup failed counts as unreachable: a flow must not leave through another interface.
    fn is_reached(
        &mut self,
        netlink: &mut Socket,
        addresses: &Addresses,
        source: &Source,
        endpoint: IpAddr,
    ) -> bool {
        let silent = || {
            Err(io::Error::other(
                "the kernel did not answer to an earlier request",
            ))
        };
        let asked = if netlink.is_sound() {
            is_reached(netlink, addresses, source, endpoint)
        } else {
            silent()
        };
        match asked {
            Ok(is_reached) => {
                self.unknown.remove(&endpoint);
                is_reached
            }
            Err(error) => {
                self.unknown.insert(endpoint, error);
                false
            }
        }
    }
}

fn all(rules: &PodRules) -> impl Iterator<Item = (&Source, IpAddr)> {
    let vips = Family::ALL
        .into_iter()
        .flat_map(|family| rules.vips(family).into_values());
    let sourced = vips.filter_map(|(rules, source)| Some((rules, source?)));
    sourced.flat_map(|(rules, source)| {
        let ports = rules.ports.values();
        ports.flat_map(move |port| port.endpoints.iter().map(move |endpoint| (source, endpoint.ip())))
    })
}

fn new<'a>(delta: &Delta<'a>) -> impl Iterator<Item = (&'a Source, IpAddr)> {
    let rules = delta.wanted();
    delta.ports.iter().flat_map(move |((vip, _), change)| {
        let source = rules.vip(*vip).and_then(|(_, source)| source);
        let old = change.old.map(|old| old.endpoints);
        let wanted = change.new.into_iter();
        let new = wanted.flat_map(move |new| new.endpoints.not_in(old));
        new.filter_map(move |endpoint| Some((source?, endpoint.ip())))
    })
}

/// Returns the endpoints outside of the subnets of the interface: nearly always none. In each subnet one neighbour is looked up, because
/// another process may have removed its route.
fn off_subnet_endpoints<'a>(
    netlink: &mut Socket,
    addresses: &Addresses,
    endpoints: impl Iterator<Item = (&'a Source, IpAddr)>,
    lost: &mut Lost,
) -> BTreeSet<(&'a Source, IpAddr)> {
    let (mut far, mut routed) = (BTreeSet::new(), BTreeMap::<(&Source, IpNet), bool>::new());
    for (source, endpoint) in endpoints {
        let is_near = match addresses.neighbourhood(&source.interface, endpoint) {
            None => false,
            // The pod's own address does not show the route to others.
            Some(_) if endpoint == source.address => true,
            Some(subnet) => {
                if let Some(known) = routed.get(&(source, subnet)) {
                    *known
                } else {
                    let is_routed = lost.is_reached(netlink, addresses, source, endpoint);
                    routed.insert((source, subnet), is_routed);
                    is_routed
                }
            }
        };
        if !is_near {
            far.insert((source, endpoint));
        }
    }
    far
}

/// Returns true when the kernel routes a packet to the endpoint through the right interface, or delivers it locally: the pod is its own
/// endpoint.
fn is_reached(
    netlink: &mut Socket,
    addresses: &Addresses,
    source: &Source,
    endpoint: IpAddr,
) -> io::Result<bool> {
    let mut request = RouteMessage::default();
    (
        request.header.address_family,
        request.header.destination_prefix_length,
    ) = match endpoint {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request.header.source_prefix_length = request.header.destination_prefix_length;
    request.attributes = vec![
        RouteAttribute::Destination(endpoint.into()),
        // Policy routing may match it.
        RouteAttribute::Source(source.address.into()),
    ];
    let found = match netlink.ask(&RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => route,
        Ok(_) => return Ok(false),
        Err(error) if is_unreachable(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let out_by = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let is_right = |interface: &str| out_by.is_some() && out_by == addresses.index(interface);
    Ok(is_right(&source.interface) || is_right("lo"))
}

/// Errors of the kernel for a missing or prohibiting route.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, InvalidInput, NetworkUnreachable, PermissionDenied};
    matches!(
        error.kind(),
        NetworkUnreachable | HostUnreachable | PermissionDenied | InvalidInput
    )
}
