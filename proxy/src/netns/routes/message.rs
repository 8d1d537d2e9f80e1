//! Netlink messages of routes.
//!
//! Pure.

use api::names::ROUTE_PROTOCOL;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

/// Interface and source address of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    pub(super) interface: u32,
    pub(super) source: Option<IpAddr>,
}

/// Returns a route to a VIP through an interface.
pub(super) fn message(vip: IpAddr, via: Via) -> RouteMessage {
    let mut message = to(vip);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(via.interface));
    attributes.extend(via.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// Returns a route to a VIP, without its interface.
pub(super) fn to(vip: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, length) = match vip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header = RouteHeader {
        address_family: family,
        destination_prefix_length: length,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(ROUTE_PROTOCOL),
        // On-link: the packet is translated before the kernel would resolve the VIP's link-layer address.
        scope: if vip.is_ipv4() {
            RouteScope::Link
        } else {
            RouteScope::Universe
        },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(vip.into())];
    message
}

/// Returns the VIP and the route, if this program wrote it.
pub(crate) fn own(message: &RouteNetlinkMessage) -> Option<(IpAddr, Via)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    if route.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL)
        || route.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    destination(route)
}

/// Returns a host route "proto kernel" that the kernel never creates itself: its own have scope link.
pub(crate) fn legacy_route(message: RouteNetlinkMessage) -> Option<(IpAddr, RouteMessage)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let RouteHeader {
        protocol,
        table,
        kind,
        scope,
        destination_prefix_length: 32,
        ..
    } = route.header
    else {
        return None;
    };
    let by_hand = protocol == RouteProtocol::Kernel
        && table == RouteHeader::RT_TABLE_MAIN
        && kind == RouteType::Unicast
        && scope == RouteScope::Universe;
    let has_gateway = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_));
    if !by_hand || route.attributes.iter().any(has_gateway) {
        return None;
    }
    let (vip, via) = destination(&route)?;
    via.source.map(|_| (vip, route))
}

fn destination(route: &RouteMessage) -> Option<(IpAddr, Via)> {
    let (mut vip, mut via) = (
        None,
        Via {
            interface: 0,
            source: None,
        },
    );
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => vip = ip(address),
            RouteAttribute::Oif(index) => via.interface = *index,
            RouteAttribute::PrefSource(address) => via.source = ip(address),
            _ => {}
        }
    }
    Some((vip?, via))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
