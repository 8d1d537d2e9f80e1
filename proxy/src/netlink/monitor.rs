//! Monitor of routes, links and addresses that other processes change in the namespaces of pods, through netlink notifications. For nftables
//! rules see `generation`.
//!
//! Reads only, and assigns namespace ids. A socket of one namespace receives the events of every other that has an id there, so no socket has to be
//! kept open in a pod, which would keep a dead pod's namespace alive. That namespace is empty and private, and only served pods
//! get an id there: events of the node and of other pods are never received, no matter how many. Needs CAP_NET_BROADCAST.

use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::netns::routes;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::{Mutex, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Multicast groups: links, addresses and routes of both families. The kernel builds these messages with or without subscribers.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// `NETLINK_LISTEN_ALL_NSID` as the type of a control message.
const SOL_NETLINK: i32 = 270;
const NSID: i32 = 8;

/// Receive buffer for a burst, in bytes, which the kernel doubles: the most kernel memory of the subscription. Our own writes into a hundred
/// pods are events, too.
const BUFFER: usize = 4 << 20;

/// Bytes of a message that are read: a link is a few KiB.
const ROOM: usize = 32 << 10;

/// Id of another network namespace. Reused after its deletion.
pub(crate) type NamespaceId = i32;

/// Change by another process, or by this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// Links, addresses or routes changed.
    Routes(NamespaceId),
    /// Notifications were lost: anything may have changed in any namespace.
    Overrun,
}

/// Socket that receives events of all namespaces that have an id.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Readable,
    room: Vec<u8>,
    /// Messages received since the kernel dropped some. It reports further losses only once the queue was empty (`netlink_overrun`,
    /// `NETLINK_S_CONGESTED`), so an overrun is not over before.
    since_overrun: Option<u32>,
}

/// Messages after which an overrun is reported although the queue was never empty: several buffers.
const STORM: u32 = 100_000;

/// Assigns ids of namespaces for the [`Monitor`].
pub(crate) struct NamespaceIds(Mutex<Netlink<RouteNetlinkMessage>>);

impl Monitor {
    /// Subscribes to the events.
    pub(crate) fn open() -> io::Result<(Self, NamespaceIds)> {
        let opened = Netns::scratch(|| Ok((subscribe()?, Netlink::open(NETLINK_ROUTE)?)));
        let (socket, names): (StdDatagram, _) = opened.map_err(io::Error::other).flatten()?;
        let monitor = Self {
            socket: UnixDatagram::from_std(socket)?,
            room: vec![0; ROOM],
            since_overrun: None,
        };
        Ok((monitor, NamespaceIds(Mutex::new(names))))
    }

    /// Waits for the next notification. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Notification {
        loop {
            let readable = self.socket.readable().await;
            let (socket, room) = (&self.socket, &mut self.room);
            let received = readable.and_then(|()| {
                socket.try_io(Interest::READABLE, || {
                    receive_now(socket, room).map(|received| received.as_ref().and_then(of_routes))
                })
            });
            match received {
                // The resync after an overrun covers this notification.
                Ok(notification) if !self.ends_overrun(false) => {
                    if let Some(notification) = notification {
                        return notification;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.ends_overrun(true) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.since_overrun.get_or_insert(0);
                }
                // The queue is empty after an overrun. For any other error, a resync of everything is correct, too.
                Ok(_) | Err(_) => return Notification::Overrun,
            }
        }
    }

    /// Counts messages after an overrun. Returns true once, when everything has to be resynced.
    fn ends_overrun(&mut self, is_empty: bool) -> bool {
        let Some(received) = &mut self.since_overrun else {
            return false;
        };
        *received += 1;
        let is_over = is_empty || *received >= STORM;
        if is_over {
            self.since_overrun = (!is_empty).then_some(0);
        }
        is_over
    }
}

/// Netlink socket that the async runtime can wait for: the only type for this without unsafe code that makes no demands on the descriptor.
/// Only its readiness is used.
type Readable = UnixDatagram;

fn subscribe() -> io::Result<StdDatagram> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.set_listen_all_namespaces(true)?;
    // With CAP_NET_ADMIN, independent of `net.core.rmem_max`. A smaller buffer only overruns earlier.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.as_fd().try_clone_to_owned().map(StdDatagram::from)
}

/// Message and its namespace.
struct Received<'a> {
    bytes: &'a [u8],
    from: NamespaceId,
}

fn receive_now<'a>(socket: &Readable, room: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
    let mut control = [0; 64];
    let mut parts = [IoSliceMut::new(room)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (length, mut from) = (message.bytes, None);
    for control in message.cmsgs()? {
        if let ControlMessageOwned::Unknown(control) = control
            && control.cmsg_header.cmsg_level == SOL_NETLINK
            && control.cmsg_header.cmsg_type == NSID
        {
            from = control
                .data_bytes
                .first_chunk()
                .map(|id| NamespaceId::from_ne_bytes(*id));
        }
    }
    let bytes = &room[..length.min(room.len())];
    Ok(from.map(|from| Received { bytes, from }))
}

/// Filters events that can affect our routes or routes to endpoints: routes, links, addresses. Routes of router advertisements come and go
/// and are ignored, as are our own changes.
fn of_routes(received: &Received<'_>) -> Option<Notification> {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink, NewRoute};
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(received.bytes).ok()?;
    if routes::is_ours(message.header.port_number) {
        return None;
    }
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    let matters = match inner {
        NewRoute(route) | DelRoute(route) => may_lead_to_endpoints(&route),
        NewAddress(_) | DelAddress(_) | NewLink(_) | DelLink(_) => true,
        _ => false,
    };
    matters.then_some(Notification::Routes(received.from))
}

fn may_lead_to_endpoints(route: &RouteMessage) -> bool {
    let RouteHeader {
        protocol,
        table,
        kind,
        ..
    } = route.header;
    protocol != RouteProtocol::Ra && table == RouteHeader::RT_TABLE_MAIN && kind == RouteType::Unicast
}

impl NamespaceIds {
    /// Returns the id of `netns`, and assigns one if it has none. The id does not keep a namespace alive.
    pub(crate) fn id_of(&self, netns: &Netns) -> io::Result<NamespaceId> {
        let descriptor = u32::try_from(netns.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = |attributes| {
            let mut message = NsidMessage::default();
            message.attributes = attributes;
            message
        };
        for _ in 0..2 {
            let question = RouteNetlinkMessage::GetNsId(message(vec![NsidAttribute::Fd(descriptor)]));
            if let RouteNetlinkMessage::NewNsId(answer) = netlink.ask(&question)?
                && let Some(id) = answer.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                })
            {
                return Ok(id);
            }
            // -1: any free id.
            let assign = message(vec![NsidAttribute::Fd(descriptor), NsidAttribute::Id(-1)]);
            match netlink.change(&RouteNetlinkMessage::NewNsId(assign), 0) {
                // Two pods may share one namespace.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(io::Error::other("the kernel assigned no namespace id"))
    }
}
