//! Which addresses a network namespace holds: the proof that it is the pod's, and that a source address can be used.
//!
//! Reads only. An IPv6 address whose duplicate detection still runs counts as absent: the kernel refuses it as a route's source.

use crate::netlink::Netlink;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rules::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// The addresses and interfaces of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    held: BTreeSet<(u32, IpAddr)>,
    interfaces: BTreeMap<String, u32>,
    /// Subnets that an interface's addresses put on its link.
    on_link: BTreeSet<(u32, IpNet)>,
    /// Interfaces on another one, and which.
    parents: BTreeMap<u32, Parent>,
}

/// What a macvlan or ipvlan interface is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    index: u32,
    is_in_another_namespace: bool,
}

impl Addresses {
    /// Reads those of the calling thread's namespace.
    pub(crate) fn read(netlink: &mut Netlink<RouteNetlinkMessage>) -> io::Result<Self> {
        let mut read = Self::default();
        for message in netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            if let RouteNetlinkMessage::NewLink(link) = message {
                read.interfaces
                    .extend(name(&link).map(|name| (name, link.header.index)));
                read.parents
                    .extend(parent(&link).map(|parent| (link.header.index, parent)));
            }
        }
        for message in netlink.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                read.held
                    .extend(usable(&address).map(|usable| (address.header.index, usable)));
                read.on_link
                    .extend(on_link(&address).map(|subnet| (address.header.index, subnet)));
            }
        }
        Ok(read)
    }

    /// Whether any interface holds one of `addresses`.
    pub(crate) fn hold_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        self.held.iter().any(|(_, address)| addresses.contains(address))
    }

    /// Whether the interface of `source` holds its address.
    pub(crate) fn hold(&self, source: &Source) -> bool {
        self.index(&source.interface)
            .is_some_and(|index| self.held.contains(&(index, source.address)))
    }

    /// The subnet by which `address` is on the link of an interface, if it is on no other's.
    pub(crate) fn neighbourhood(&self, interface: &str, address: IpAddr) -> Option<IpNet> {
        let index = self.index(interface)?;
        let mut on_link = self
            .on_link
            .iter()
            .filter(|(_, subnet)| subnet.contains(&address));
        let (_, found) = on_link.clone().find(|(other, _)| *other == index)?;
        on_link.all(|(other, _)| *other == index).then_some(*found)
    }

    /// The interface of another namespace, the node's, that an interface is on.
    pub(crate) fn parent_elsewhere(&self, interface: &str) -> Option<u32> {
        let parent = self.parents.get(&self.index(interface)?)?;
        parent.is_in_another_namespace.then_some(parent.index)
    }

    /// The interfaces of this namespace that others of it are on.
    pub(crate) fn parents_here(&self) -> BTreeSet<u32> {
        let here = self
            .parents
            .values()
            .filter(|parent| !parent.is_in_another_namespace);
        here.map(|parent| parent.index).collect()
    }

    /// The addresses of an interface that can be used.
    pub(crate) fn of(&self, interface: &str) -> Vec<IpAddr> {
        let index = self.index(interface);
        let held = self.held.iter().filter(|(of, _)| Some(*of) == index);
        held.map(|(_, address)| *address).collect()
    }

    /// Every interface.
    pub(crate) fn interfaces(&self) -> BTreeMap<String, u32> {
        self.interfaces.clone()
    }

    /// The index of an interface.
    pub(crate) fn index(&self, interface: &str) -> Option<u32> {
        self.interfaces.get(interface).copied()
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

/// The subnet for which the kernel made a route when it got the address.
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

/// On a point-to-point link `Address` is the peer's and `Local` ours; elsewhere IPv4 has both alike and IPv6 only the first.
pub(crate) fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    let optimistic = message.header.flags.contains(AddressHeaderFlags::Optimistic);
    if message.header.flags.intersects(unusable) && !optimistic {
        return None;
    }
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
