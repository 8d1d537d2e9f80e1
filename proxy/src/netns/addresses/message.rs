//! Netlink messages of links and addresses.
//!
//! Pure.

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use std::net::IpAddr;

/// Reason why the kernel rejects an IPv6 address as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// Duplicate detection is running.
    Tentative,
    /// Another host has the address.
    Found,
}

/// Parent of a macvlan or ipvlan interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(super) index: u32,
    pub(super) is_in_another_namespace: bool,
}

/// Properties of an interface.
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: Option<String>,
    pub(super) parent: Option<Parent>,
    pub(super) is_down: bool,
    pub(super) is_without_ipv6: bool,
}

impl Interface {
    pub(super) fn of(link: &LinkMessage) -> Self {
        Self {
            index: link.header.index,
            name: name(link),
            parent: parent(link),
            is_down: !link.header.flags.contains(LinkFlags::Up),
            is_without_ipv6: has_ipv6_disabled(link),
        }
    }
}

pub(crate) fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

pub(crate) fn parent(link: &LinkMessage) -> Option<Parent> {
    let (mut index, mut is_child, mut is_in_another_namespace) = (None, false, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(parent) => index = Some(*parent),
            LinkAttribute::LinkNetNsId(_) => is_in_another_namespace = true,
            LinkAttribute::LinkInfo(infos) => {
                is_child = infos.iter().any(|info| {
                    use InfoKind::{IpVlan, IpVtap, MacVlan, MacVtap};
                    matches!(info, LinkInfo::Kind(MacVlan | MacVtap | IpVlan | IpVtap))
                });
            }
            _ => {}
        }
    }
    index.filter(|_| is_child).map(|index| Parent {
        index,
        is_in_another_namespace,
    })
}

/// Returns the subnet for which the kernel added a route with the address.
pub(crate) fn on_link(message: &AddressMessage) -> Option<IpNet> {
    let is_without_route = message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Noprefixroute))
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let subnet = IpNet::new(address?, message.header.prefix_len).ok();
    subnet.filter(|_| !is_without_route)
}

/// On a point-to-point link `Address` is that of the peer and `Local` the own one; elsewhere IPv4 has both equal and IPv6 only the first.
pub(crate) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

pub(crate) fn duplicate(message: &AddressMessage) -> Option<Duplicate> {
    let flags = message.header.flags;
    // RFC 4429: an optimistic address may be used while it is tentative.
    if flags.contains(AddressHeaderFlags::Optimistic) {
        None
    } else if flags.contains(AddressHeaderFlags::Dadfailed) {
        Some(Duplicate::Found)
    } else {
        flags
            .contains(AddressHeaderFlags::Tentative)
            .then_some(Duplicate::Tentative)
    }
}

fn has_ipv6_disabled(link: &LinkMessage) -> bool {
    let families = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    });
    let ipv6 = families.flatten().filter_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    });
    ipv6.flatten()
        .any(|attribute| matches!(attribute, AfSpecInet6::DevConf(settings) if settings.disable_ipv6 != 0))
}
