//! Host routes to VIPs: which way, and with which source address, a pod's own flows leave.
//!
//! Writes: routes with our own protocol number in the calling thread's namespace, and no others; so what is ours can always be
//! told, and a route somebody else made to the same address is reported, not replaced.

use crate::netlink::Netlink;
use crate::netns::addresses::Addresses;
use api::names::ROUTE_PROTOCOL;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;

/// Why a route is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our routes cannot be read.
    #[error("failed to read the routes")]
    Read(#[source] io::Error),
    /// One cannot be added.
    #[error("failed to add a route by interface {interface:?} with source {source_address}")]
    Add {
        /// The interface.
        interface: String,
        /// The source address.
        source_address: IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One cannot be removed.
    #[error("failed to remove the route")]
    Remove(#[source] io::Error),
    /// It was not tried, for the socket may be out of step with the kernel.
    #[error("the kernel did not answer to an earlier request for a route")]
    Silent,
}

/// Our routes in one namespace, as read once, or as they were written.
pub(crate) struct Routes {
    /// Whether they were read. Otherwise `held` has what was added since, and the kernel says what is in the way of a route.
    is_read: bool,
    held: BTreeMap<IpAddr, Via>,
    /// Those of the proxy of the archived Go project, which marked them as the kernel's.
    legacy: BTreeMap<IpAddr, RouteMessage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    interface: u32,
    source: Option<IpAddr>,
}

type Socket = Netlink<RouteNetlinkMessage>;

/// The socket that changes routes, in the calling thread's namespace: opened when it is first used, which few changes do.
pub(crate) fn socket() -> Socket {
    Netlink::lazy(NETLINK_ROUTE, port())
}

/// Whether it was us who made the change that a notification with this port is about. Sockets of others in a pod can have the port by
/// intent only; then a change is noticed later, in that pod.
pub(crate) fn is_ours(port_of_sender: u32) -> bool {
    port_of_sender == port()
}

/// Above those that the kernel gives for ids of processes, and below those that it gives when these are taken (`netlink_autobind`). Drawn
/// once for this process.
fn port() -> u32 {
    static PORT: OnceLock<u32> = OnceLock::new();
    let draw = || {
        let low = RandomState::new().hash_one(()) % (1 << 30);
        (1 << 30) | u32::try_from(low).unwrap_or_default()
    };
    *PORT.get_or_init(draw)
}

impl Routes {
    /// Reads ours from the calling thread's namespace.
    pub(crate) fn read(netlink: &mut Socket) -> Result<Self, Error> {
        let ours = RouteProtocol::Other(ROUTE_PROTOCOL);
        let mut held = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            held.extend(list(netlink, family, ours, |message| own(&message))?);
        }
        let legacy = list(netlink, AddressFamily::Inet, RouteProtocol::Kernel, legacy_route)?;
        let legacy = legacy.into_iter().collect();
        Ok(Self {
            is_read: true,
            held,
            legacy,
        })
    }

    /// Those of a namespace that has a route to each VIP that it should have one to, and to no other, but for what is changed now. To list
    /// thousands for that takes as many times as long.
    pub(crate) fn as_written() -> Self {
        Self {
            is_read: false,
            held: BTreeMap::new(),
            legacy: BTreeMap::new(),
        }
    }

    /// Whether they were read.
    pub(crate) fn are_read(&self) -> bool {
        self.is_read
    }

    /// The VIPs to which there is one.
    pub(crate) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.held.keys().copied()
    }

    /// Adds what is missing and replaces what differs, each whatever becomes of the others.
    pub(crate) fn add(
        &mut self,
        netlink: &mut Socket,
        addresses: &Addresses,
        wanted: &BTreeMap<IpAddr, &Source>,
    ) -> Added {
        let mut added = Added::default();
        for (vip, source) in wanted {
            // The caller wants only sources that the namespace holds; an interface can vanish meanwhile all the same.
            let via = Via {
                interface: addresses.index(&source.interface).unwrap_or_default(),
                source: Some(source.address),
            };
            if self.held.get(vip) == Some(&via) {
                continue;
            }
            if !netlink.is_sound() {
                added.failed.insert(*vip, Error::Silent);
                continue;
            }
            match self.add_or_look(netlink, *vip, via) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    added.foreign.insert(*vip);
                }
                Err(error) => {
                    let error = Error::Add {
                        interface: source.interface.clone(),
                        source_address: source.address,
                        source: error,
                    };
                    added.failed.insert(*vip, error);
                }
            }
        }
        added
    }

    /// Where a route is in the way it is looked whose it is.
    fn add_or_look(&mut self, netlink: &mut Socket, vip: IpAddr, via: Via) -> io::Result<()> {
        match self.add_one(netlink, vip, via) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.is_read => {
                *self = Self::read(netlink).map_err(io::Error::other)?;
                if self.held.get(&vip) == Some(&via) {
                    return Ok(());
                }
                self.add_one(netlink, vip, via)
            }
            added => added,
        }
    }

    fn add_one(&mut self, netlink: &mut Socket, vip: IpAddr, via: Via) -> io::Result<()> {
        // What the original left is taken over in place: there is a way to the VIP all the time.
        let replaces = self.held.contains_key(&vip) || self.legacy.contains_key(&vip);
        let flags = NLM_F_CREATE | if replaces { NLM_F_REPLACE } else { NLM_F_EXCL };
        netlink.change(&RouteNetlinkMessage::NewRoute(message(vip, via)), flags)?;
        self.legacy.remove(&vip);
        self.held.insert(vip, via);
        Ok(())
    }

    /// Removes every route of ours to a VIP for which `is_kept` does not hold. Returns those that are still there, and why.
    pub(crate) fn remove_others(
        &mut self,
        netlink: &mut Socket,
        is_kept: impl Fn(&IpAddr) -> bool,
    ) -> BTreeMap<IpAddr, Error> {
        let others = self.held.keys().filter(|vip| !is_kept(vip));
        let stale: Vec<IpAddr> = others.copied().collect();
        let mut failed = BTreeMap::new();
        for vip in stale {
            if !netlink.is_sound() {
                failed.insert(vip, Error::Silent);
                continue;
            }
            match netlink.change(&RouteNetlinkMessage::DelRoute(message(vip, self.held[&vip])), 0) {
                Err(error) if !went_with_its_interface(&error) => {
                    failed.insert(vip, Error::Remove(error));
                }
                _ => _ = self.held.remove(&vip),
            }
        }
        failed
    }

    /// Removes our route to each of these VIPs, whichever way it leads. Returns those that are still there, and why.
    pub(crate) fn remove(
        netlink: &mut Socket,
        vips: impl IntoIterator<Item = IpAddr>,
    ) -> BTreeMap<IpAddr, Error> {
        let mut failed = BTreeMap::new();
        for vip in vips {
            if !netlink.is_sound() {
                failed.insert(vip, Error::Silent);
                continue;
            }
            // The kernel compares what is said: protocol, table, scope. So it removes none of somebody else (`fib_table_delete`, `ip6_route_del`).
            match netlink.change(&RouteNetlinkMessage::DelRoute(to(vip)), 0) {
                Err(error) if !went_with_its_interface(&error) => {
                    failed.insert(vip, Error::Remove(error));
                }
                _ => {}
            }
        }
        failed
    }

    /// Removes what the proxy of the archived Go project left to these VIPs.
    pub(crate) fn remove_legacy(
        &mut self,
        netlink: &mut Socket,
        vips: impl Iterator<Item = IpAddr>,
    ) -> Result<(), Error> {
        for vip in vips {
            let Some(route) = self.legacy.remove(&vip) else {
                continue;
            };
            match netlink.change(&RouteNetlinkMessage::DelRoute(route), 0) {
                Err(error) if !went_with_its_interface(&error) => return Err(Error::Remove(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What became of routes that were to be added.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// VIPs to which somebody else has a route, which was left alone.
    pub(crate) foreign: BTreeSet<IpAddr>,
    /// VIPs without a route, and why.
    pub(crate) failed: BTreeMap<IpAddr, Error>,
}

/// ESRCH: there is no such route any more. ENODEV: nor its interface.
fn went_with_its_interface(error: &io::Error) -> bool {
    use nix::libc::{ENODEV, ESRCH};
    matches!(error.raw_os_error(), Some(ESRCH | ENODEV))
}

/// What `keep` makes of the routes with this protocol, and of others where the kernel does not tell them apart.
fn list<T>(
    netlink: &mut Socket,
    family: AddressFamily,
    protocol: RouteProtocol,
    keep: impl FnMut(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.protocol = protocol;
    let request = RouteNetlinkMessage::GetRoute(request);
    let listed = netlink.strictly(|netlink| netlink.dump_some(&request, keep));
    listed.map_err(Error::Read)
}

fn message(vip: IpAddr, via: Via) -> RouteMessage {
    let mut message = to(vip);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(via.interface));
    attributes.extend(via.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// A route of ours, whichever way it leads.
fn to(vip: IpAddr) -> RouteMessage {
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
        // On-link: the packet is translated before anybody would be asked for the VIP's link-layer address.
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

/// A host route "proto kernel" that the kernel never makes by itself: its own are on-link in scope.
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
