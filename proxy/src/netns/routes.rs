//! Host routes to VIPs, which set the interface and the source address of a pod's own flows.
//!
//! Writes: routes with our own protocol number in the calling thread's namespace, and no others; so our routes can
//! always be identified, and a foreign route to the same address is reported, not replaced.

mod message;

use crate::netlink::Netlink;
use crate::netlink::kept_sockets::KeptSocket;
use crate::netns::addresses::Addresses;
use api::names::ROUTE_PROTOCOL;
use message::{Via, message, to};
pub(crate) use message::{legacy_route, own};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_indextoname;
use rules::{AppliedRoute, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;

/// Error of a route.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our routes could not be read.
    #[error("failed to read the routes")]
    Read(#[source] io::Error),
    /// A route could not be added.
    #[error("failed to add a route through interface {interface:?} with source {source_address}")]
    Add {
        /// Interface.
        interface: String,
        /// Source address.
        source_address: IpAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A route could not be removed.
    #[error("failed to remove the route")]
    Remove(#[source] io::Error),
    /// The request was not sent, because the socket may be out of step with the kernel.
    #[error("the kernel did not answer to an earlier request for a route")]
    Silent,
}

/// Our routes in one namespace, as read or as written.
pub(crate) struct Routes {
    /// Set when the routes were read. Otherwise `held` has the routes that were added since, and the kernel reports conflicts.
    is_read: bool,
    held: BTreeMap<IpAddr, Via>,
    /// Routes of the archived multus-service proxy, which have the protocol of the kernel.
    legacy: BTreeMap<IpAddr, RouteMessage>,
}

type Socket = Netlink<RouteNetlinkMessage>;

/// The socket that changes routes, in the calling thread's namespace: opened when it is first used, which few changes do.
pub(crate) fn socket() -> KeptSocket<RouteNetlinkMessage> {
    KeptSocket::new(NETLINK_ROUTE, port())
}

/// Returns true when a notification with this port is about our own change. Another socket in a pod can have the port only on purpose;
/// then a change is noticed later, in that pod.
pub(crate) fn is_ours(port_of_sender: u32) -> bool {
    port_of_sender == port()
}

/// Above the ports that the kernel assigns by process id, and below those that it assigns when these are in use (`netlink_autobind`).
/// Chosen once per process.
fn port() -> u32 {
    static PORT: OnceLock<u32> = OnceLock::new();
    let draw = || {
        let low = RandomState::new().hash_one(()) % (1 << 30);
        (1 << 30) | u32::try_from(low).unwrap_or_default()
    };
    *PORT.get_or_init(draw)
}

impl Routes {
    /// Reads our routes from the calling thread's namespace.
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

    /// Assumes that the namespace has exactly the wanted routes, except for the current change. A listing of thousands of routes would take
    /// thousands of times as long.
    pub(crate) fn as_written() -> Self {
        Self {
            is_read: false,
            held: BTreeMap::new(),
            legacy: BTreeMap::new(),
        }
    }

    /// Returns true when the routes were read.
    pub(crate) fn are_read(&self) -> bool {
        self.is_read
    }

    /// Returns the routes that were read.
    pub(crate) fn applied(&self) -> Vec<AppliedRoute> {
        let name = |index: u32| {
            let name = if_indextoname(index).ok();
            let name = name.and_then(|name| name.into_string().ok());
            name.unwrap_or_else(|| index.to_string())
        };
        let routes = self.held.iter().map(|(vip, via)| AppliedRoute {
            cluster_ip: *vip,
            interface: name(via.interface),
            source: via.source,
        });
        routes.collect()
    }

    /// Returns the VIPs that have a route.
    pub(crate) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.held.keys().copied()
    }

    /// Adds missing routes and replaces different ones, each independently of failures of others.
    pub(crate) fn add(
        &mut self,
        netlink: &mut Socket,
        addresses: &Addresses,
        wanted: &BTreeMap<IpAddr, &Source>,
    ) -> Added {
        let mut added = Added::default();
        for (vip, source) in wanted {
            // The caller wants only sources that the namespace has; an interface can still be removed meanwhile.
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
                Ok(()) => added.written.push(*vip),
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

    /// Adds a route; on a conflict, reads the existing route to find its owner.
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
        // A route of the legacy proxy is replaced in place: the VIP has a route at any time.
        let replaces = self.held.contains_key(&vip) || self.legacy.contains_key(&vip);
        let flags = NLM_F_CREATE | if replaces { NLM_F_REPLACE } else { NLM_F_EXCL };
        netlink.change(&RouteNetlinkMessage::NewRoute(message(vip, via)), flags)?;
        self.legacy.remove(&vip);
        self.held.insert(vip, via);
        Ok(())
    }

    /// Removes every managed route to a VIP for which `is_kept` is false. Returns the routes that could not be removed, with the error.
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

    /// Removes our route to each of these VIPs, through any interface. Returns the routes that could not be removed, with the error.
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
            // The kernel compares protocol, table and scope. So it removes no foreign route (`fib_table_delete`, `ip6_route_del`).
            match netlink.change(&RouteNetlinkMessage::DelRoute(to(vip)), 0) {
                Err(error) if !went_with_its_interface(&error) => {
                    failed.insert(vip, Error::Remove(error));
                }
                _ => {}
            }
        }
        failed
    }

    /// Removes routes of the archived multus-service proxy to these VIPs.
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

/// Result of adding routes.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// VIPs whose route was added or replaced.
    pub(crate) written: Vec<IpAddr>,
    /// VIPs with a foreign route, which was not changed.
    pub(crate) foreign: BTreeSet<IpAddr>,
    /// VIPs without a route, with the error.
    pub(crate) failed: BTreeMap<IpAddr, Error>,
}

/// ESRCH: the route no longer exists. ENODEV: its interface no longer exists.
fn went_with_its_interface(error: &io::Error) -> bool {
    use nix::libc::{ENODEV, ESRCH};
    matches!(error.raw_os_error(), Some(ESRCH | ENODEV))
}

/// Collects what `keep` returns for the routes with this protocol, and for others where the kernel does not filter.
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
