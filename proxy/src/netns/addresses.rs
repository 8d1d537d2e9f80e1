//! Which addresses a network namespace holds: the proof that it is the pod's, and that a source address can be used.
//!
//! Reads only. An IPv6 address whose duplicate detection still runs counts as absent: the kernel rejects it as a route's source.

use crate::netlink::Netlink;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rules::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// The addresses and interfaces of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    held: BTreeSet<(u32, IpAddr)>,
    /// Addresses that the kernel does not take as a source: their duplicate detection runs, or found somebody else.
    unusable: BTreeMap<(u32, IpAddr), Duplicate>,
    interfaces: BTreeMap<String, u32>,
    /// Interfaces that are administratively down: the kernel takes no route by them.
    down: BTreeSet<u32>,
    /// Interfaces on which IPv6 is disabled.
    without_ipv6: BTreeSet<u32>,
    /// Subnets that an interface's addresses put on its link.
    on_link: BTreeSet<(u32, IpNet)>,
    /// Interfaces on another one, and which.
    parents: BTreeMap<u32, Parent>,
}

/// Why the kernel does not take an IPv6 address as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// It asks whether anybody else has it.
    Tentative,
    /// Somebody else has it.
    Found,
}

/// Why a source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Absence {
    /// network-status names no interface, and none holds the address.
    #[error(
        "no interface of the pod has {0}, and network-status names none for it: restart the pod if the address is gone for good"
    )]
    Nowhere(IpAddr),
    /// There is no such interface.
    #[error("the pod has no interface {interface:?}, which network-status names for {address}{}: it was removed or renamed", held_by(holder.as_deref()))]
    NoInterface {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
        /// The interface that has the address instead.
        holder: Option<String>,
    },
    /// It is administratively down.
    #[error("interface {0:?} is down: set it up again")]
    Down(String),
    /// IPv6 is switched off.
    #[error(
        "IPv6 is disabled on interface {0:?}: set net.ipv6.conf.{0}.disable_ipv6=0 and give it its address again"
    )]
    Ipv6Disabled(String),
    /// Duplicate address detection has not ended.
    #[error("duplicate address detection of {address} on interface {interface:?} has not ended")]
    Tentative {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
    },
    /// Duplicate address detection found another host.
    #[error(
        "another host on the network has {address} of interface {interface:?} (duplicate address detection failed): correct the IPAM"
    )]
    Duplicate {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
    },
    /// The interface is up and has not this address.
    #[error("interface {interface:?} does not have {address}, which network-status says it has{}: it was removed, or a userspace driver, as with DPDK, has taken the device", held_by(holder.as_deref()))]
    NoAddress {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
        /// The interface that has the address instead.
        holder: Option<String>,
    },
}

fn held_by(holder: Option<&str>) -> String {
    holder
        .map(|holder| format!(" (interface {holder:?} has it)"))
        .unwrap_or_default()
}

/// What a macvlan or ipvlan interface is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    index: u32,
    is_in_another_namespace: bool,
}

/// What is kept of an interface.
struct Interface {
    index: u32,
    name: Option<String>,
    parent: Option<Parent>,
    is_down: bool,
    is_without_ipv6: bool,
}

impl Interface {
    fn of(link: &LinkMessage) -> Self {
        Self {
            index: link.header.index,
            name: name(link),
            parent: parent(link),
            is_down: !link.header.flags.contains(LinkFlags::Up),
            is_without_ipv6: has_ipv6_disabled(link),
        }
    }
}

impl Addresses {
    /// Reads those of the calling thread's namespace.
    pub(crate) fn read(netlink: &mut Netlink<RouteNetlinkMessage>) -> io::Result<Self> {
        let mut read = Self::default();
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = netlink.dump_some(&links, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Interface::of(&link)),
            _ => None,
        })?;
        for link in links {
            let index = link.index;
            read.interfaces.extend(link.name.map(|name| (name, index)));
            read.parents.extend(link.parent.map(|parent| (index, parent)));
            read.down.extend(link.is_down.then_some(index));
            read.without_ipv6.extend(link.is_without_ipv6.then_some(index));
        }
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = netlink.dump_some(&addresses, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some((
                address.header.index,
                local(&address),
                duplicate(&address),
                on_link(&address),
            )),
            _ => None,
        })?;
        for (index, local, duplicate, on_link) in addresses {
            match (local, duplicate) {
                (Some(local), None) => _ = read.held.insert((index, local)),
                (Some(local), Some(why)) => _ = read.unusable.insert((index, local), why),
                (None, _) => {}
            }
            read.on_link.extend(on_link.map(|subnet| (index, subnet)));
        }
        Ok(read)
    }

    /// Whether there are so few that they may be kept: the owner of a pod makes as many as he likes.
    pub(crate) fn are_few(&self) -> bool {
        const FEW: usize = 64;
        let addresses = self.held.len() + self.unusable.len() + self.on_link.len();
        self.interfaces.len() <= FEW && addresses <= FEW
    }

    /// Whether any interface holds one of `addresses`.
    pub(crate) fn hold_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        self.held.iter().any(|(_, address)| addresses.contains(address))
    }

    /// Why a source cannot be used; `None`: it can.
    pub(crate) fn absence(&self, source: &Source) -> Option<Absence> {
        let Source { interface, address } = source.clone();
        if interface.is_empty() {
            return Some(Absence::Nowhere(address));
        }
        let Some(index) = self.index(&interface) else {
            let holder = self.holder(address);
            return Some(Absence::NoInterface {
                interface,
                address,
                holder,
            });
        };
        if self.down.contains(&index) {
            return Some(Absence::Down(interface));
        }
        if self.held.contains(&(index, address)) {
            return None;
        }
        if address.is_ipv6() && self.without_ipv6.contains(&index) {
            return Some(Absence::Ipv6Disabled(interface));
        }
        Some(match self.unusable.get(&(index, address)) {
            Some(Duplicate::Tentative) => Absence::Tentative { interface, address },
            Some(Duplicate::Found) => Absence::Duplicate { interface, address },
            None => Absence::NoAddress {
                interface,
                address,
                holder: self.holder(address),
            },
        })
    }

    /// The interface that has an address; of several the one made first, and loopback last: it may repeat an address of another.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<String> {
        let held = self.held.iter().chain(self.unusable.keys());
        let holders = held.filter(|(_, other)| *other == address);
        let named = holders.filter_map(|(index, _)| {
            let name = self.interfaces.iter().find(|(_, other)| *other == index)?.0;
            Some((name == "lo", *index, name.clone()))
        });
        named.min().map(|(_, _, name)| name)
    }

    /// Whether any interface holds it.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.held.iter().any(|(_, held)| *held == address)
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
