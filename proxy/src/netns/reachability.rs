//! Which endpoints a namespace has a way to by the interface that the Service's network says.
//!
//! Reads only. A packet to an endpoint in another subnet would leave by whatever route fits, often eth0's default route: to somebody
//! else's pod, or to nobody. Such an endpoint is reported and gets no flows.

use crate::netlink::Netlink;
use crate::netns::addresses::Addresses;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rules::{Delta, Family, PodRules, Source, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

type Socket = Netlink<RouteNetlinkMessage>;

/// The endpoints that cannot be reached, of those that are new in `delta`; of all that are wanted with `look_at_all`, for then routes
/// may have changed. An endpoint that was left out before is new each time.
pub(crate) fn lost(
    netlink: &mut Socket,
    addresses: &Addresses,
    delta: &Delta<'_>,
    look_at_all: bool,
) -> Lost {
    let mut lost = Lost::default();
    let far = if look_at_all {
        far_ones(netlink, addresses, all(delta.wanted()), &mut lost)
    } else {
        far_ones(netlink, addresses, new(delta), &mut lost)
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
    /// All of them.
    pub(crate) endpoints: BTreeSet<Unreachable>,
    /// Those among them of which the kernel did not say whether there is a way, and why.
    pub(crate) unknown: BTreeMap<IpAddr, io::Error>,
}

impl Lost {
    /// An endpoint of which that is not known is taken for one without: a flow must not leave by another interface.
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

/// Those that are not neighbours by an address of the interface: nearly always none. Of neighbours the kernel is asked for one of each
/// subnet, whose route may have been taken away.
fn far_ones<'a>(
    netlink: &mut Socket,
    addresses: &Addresses,
    endpoints: impl Iterator<Item = (&'a Source, IpAddr)>,
    lost: &mut Lost,
) -> BTreeSet<(&'a Source, IpAddr)> {
    let (mut far, mut routed) = (BTreeSet::new(), BTreeMap::<(&Source, IpNet), bool>::new());
    for (source, endpoint) in endpoints {
        let is_near = match addresses.neighbourhood(&source.interface, endpoint) {
            None => false,
            // The pod itself says nothing about the route to others.
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

/// Whether the kernel would send a packet of ours there by the right interface, or keep it: the pod is its own endpoint.
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
        // Policy routing may look at it.
        RouteAttribute::Source(source.address.into()),
    ];
    let found = match netlink.ask(&RouteNetlinkMessage::GetRoute(request)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => route,
        Ok(_) => return Ok(false),
        Err(error) if says_no_way(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let out_by = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let is_right = |interface: &str| out_by.is_some() && out_by == addresses.index(interface);
    Ok(is_right(&source.interface) || is_right("lo"))
}

/// What the kernel says where there is no route, or one that forbids.
fn says_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, InvalidInput, NetworkUnreachable, PermissionDenied};
    matches!(
        error.kind(),
        NetworkUnreachable | HostUnreachable | PermissionDenied | InvalidInput
    )
}
