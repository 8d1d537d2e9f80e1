//! Addresses of a network namespace. They prove that it is the pod's, and that a source address can be used.
//!
//! Reads only. An IPv6 address whose duplicate detection still runs counts as absent: the kernel rejects it as a route's source.

mod message;

use crate::netlink::Netlink;
use ipnet::IpNet;
use message::{Duplicate, Interface, Parent};
pub(crate) use message::{duplicate, local, on_link};
#[cfg(test)]
pub(crate) use message::{name, parent};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use rules::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// Addresses and interfaces of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    held: BTreeSet<(u32, IpAddr)>,
    /// Addresses that the kernel rejects as a source: duplicate detection is running, or has failed.
    unusable: BTreeMap<(u32, IpAddr), Duplicate>,
    interfaces: BTreeMap<String, u32>,
    /// Interfaces that are administratively down: the kernel accepts no route through them.
    down: BTreeSet<u32>,
    /// Interfaces on which IPv6 is disabled.
    without_ipv6: BTreeSet<u32>,
    /// On-link subnets of an interface's addresses.
    on_link: BTreeSet<(u32, IpNet)>,
    /// Interfaces with a parent, and the parent.
    parents: BTreeMap<u32, Parent>,
}

/// Reason why a source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Absence {
    /// network-status names no interface, and no interface has the address.
    #[error(
        "no interface of the pod has address {0}, and network-status names no interface for it; restart the pod if the address is lost"
    )]
    Nowhere(IpAddr),
    /// The interface does not exist.
    #[error("the pod has no interface {interface:?}, which network-status reports for {address}{}; it was removed or renamed", held_by(holder.as_deref()))]
    NoInterface {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
        /// Interface that has the address instead.
        holder: Option<String>,
    },
    /// The interface is administratively down.
    #[error("interface {0:?} is down; set it up")]
    Down(String),
    /// IPv6 is disabled.
    #[error(
        "IPv6 is disabled on interface {0:?}; set net.ipv6.conf.{0}.disable_ipv6=0 and add its address again"
    )]
    Ipv6Disabled(String),
    /// Duplicate address detection is running.
    #[error("duplicate address detection of {address} on interface {interface:?} is still running")]
    Tentative {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
    },
    /// Duplicate address detection found another host.
    #[error(
        "another host on the network has address {address} of interface {interface:?} (duplicate address detection failed); correct the IPAM"
    )]
    Duplicate {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
    },
    /// The interface is up and lacks the address.
    #[error("interface {interface:?} lacks address {address}, which network-status reports{}; it was removed, or a userspace driver, as with DPDK, has taken the device", held_by(holder.as_deref()))]
    NoAddress {
        /// Interface.
        interface: String,
        /// Address.
        address: IpAddr,
        /// Interface that has the address instead.
        holder: Option<String>,
    },
}

fn held_by(holder: Option<&str>) -> String {
    holder
        .map(|holder| format!(" (interface {holder:?} has it)"))
        .unwrap_or_default()
}

impl Addresses {
    /// Reads the addresses of the calling thread's namespace.
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

    /// Returns true when there are few enough to keep: the owner of a pod may add any number.
    pub(crate) fn are_few(&self) -> bool {
        const FEW: usize = 64;
        let addresses = self.held.len() + self.unusable.len() + self.on_link.len();
        self.interfaces.len() <= FEW && addresses <= FEW
    }

    /// Returns true when an interface has one of `addresses`.
    pub(crate) fn hold_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        self.held.iter().any(|(_, address)| addresses.contains(address))
    }

    /// Returns the reason why a source cannot be used, if any.
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

    /// Returns the interface that has an address; of several the oldest one, and loopback last, which may repeat an address of another.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<String> {
        let held = self.held.iter().chain(self.unusable.keys());
        let holders = held.filter(|(_, other)| *other == address);
        let named = holders.filter_map(|(index, _)| {
            let name = self.interfaces.iter().find(|(_, other)| *other == index)?.0;
            Some((name == "lo", *index, name.clone()))
        });
        named.min().map(|(_, _, name)| name)
    }

    /// Returns true when an interface has the address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.held.iter().any(|(_, held)| *held == address)
    }

    /// Returns the on-link subnet of an interface that contains `address`, if no other interface has one.
    pub(crate) fn neighbourhood(&self, interface: &str, address: IpAddr) -> Option<IpNet> {
        let index = self.index(interface)?;
        let mut on_link = self
            .on_link
            .iter()
            .filter(|(_, subnet)| subnet.contains(&address));
        let (_, found) = on_link.clone().find(|(other, _)| *other == index)?;
        on_link.all(|(other, _)| *other == index).then_some(*found)
    }

    /// Returns the parent of an interface in another namespace, that of the node.
    pub(crate) fn parent_elsewhere(&self, interface: &str) -> Option<u32> {
        let parent = self.parents.get(&self.index(interface)?)?;
        parent.is_in_another_namespace.then_some(parent.index)
    }

    /// Returns the interfaces that are parents of others in this namespace.
    pub(crate) fn parents_here(&self) -> BTreeSet<u32> {
        let here = self
            .parents
            .values()
            .filter(|parent| !parent.is_in_another_namespace);
        here.map(|parent| parent.index).collect()
    }

    /// Returns the usable addresses of an interface.
    pub(crate) fn of(&self, interface: &str) -> Vec<IpAddr> {
        let index = self.index(interface);
        let held = self.held.iter().filter(|(of, _)| Some(*of) == index);
        held.map(|(_, address)| *address).collect()
    }

    /// Returns all interfaces.
    pub(crate) fn interfaces(&self) -> BTreeMap<String, u32> {
        self.interfaces.clone()
    }

    /// Returns the index of an interface.
    pub(crate) fn index(&self, interface: &str) -> Option<u32> {
        self.interfaces.get(interface).copied()
    }
}
