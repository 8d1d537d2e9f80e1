//! Notices what others change in the namespaces of pods: rules flushed by hand, routes gone with their link, addresses that move.
//!
//! Reads only. The kernel tells a socket of the node's namespace about every other namespace that has an id there, so no socket has to
//! be kept open in a pod, which would keep a dead pod's namespace alive. Needs CAP_NET_BROADCAST.

use crate::netfilter;
use crate::netlink::Netlink;
use crate::netns::Netns;
use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Multicast groups: links, addresses and routes of both families; rule sets.
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
const NFTABLES_GROUP: u32 = 7;

/// Of `nfnetlink`: subsystem nftables, message NEWGEN, which ends every transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// `NETLINK_LISTEN_ALL_NSID` as the type of a control message.
const SOL_NETLINK: i32 = 270;
const NSID: i32 = 8;

/// Room for a burst, in bytes: our own writes into a hundred pods are told of, too.
const BUFFER: usize = 4 << 20;

/// How much of a message is read: a link is a few KiB, and of the rest of what is told about rules not even the end is of interest.
const ROUTE_ROOM: usize = 32 << 10;
const RULES_ROOM: usize = 256;

/// The node's name for another network namespace. Reused after that is gone.
pub(crate) type NamespaceId = i32;

/// What somebody, perhaps we, did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// Links, addresses or routes changed.
    Routes(NamespaceId),
    /// nftables rules changed, to this generation.
    Rules(NamespaceId, u32),
    /// More happened than could be told: anything may have changed anywhere.
    Overrun,
}

/// The ears. Belongs to the namespace it was opened in, the node's.
#[derive(Debug)]
pub(crate) struct Listener {
    routes: Ear,
    rules: Ear,
}

impl Listener {
    /// Starts to listen.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            routes: listen(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            rules: listen(NETLINK_NETFILTER, &[NFTABLES_GROUP])?,
        })
    }

    /// Waits for what comes next. Nothing is lost when this is dropped while it waits.
    pub(crate) async fn next(&self) -> Notification {
        loop {
            let heard = tokio::select! {
                heard = receive(&self.routes, ROUTE_ROOM) => heard.map(|heard| heard.as_ref().and_then(of_routes)),
                heard = receive(&self.rules, RULES_ROOM) => heard.map(|heard| heard.as_ref().and_then(of_rules)),
            };
            match heard {
                Ok(Some(notification)) => return notification,
                Ok(None) => {}
                // ENOBUFS; nothing else is known to happen, and looking everywhere is right in any case.
                Err(_) => return Notification::Overrun,
            }
        }
    }
}

/// A netlink socket as the runtime can wait for it: of all types that do so without unsafe code, this one asks nothing of the
/// descriptor. Only its readiness is used.
type Ear = UnixDatagram;

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Ear> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.set_listen_all_namespaces(true)?;
    // With CAP_NET_ADMIN, whatever `net.core.rmem_max` says. A smaller buffer only overruns earlier.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    for group in groups {
        socket.add_membership(*group)?;
    }
    UnixDatagram::from_std(StdDatagram::from(socket.as_fd().try_clone_to_owned()?))
}

/// A datagram and where it is from; `None`: our own namespace.
struct Heard {
    bytes: Vec<u8>,
    from: NamespaceId,
}

async fn receive(ear: &Ear, room: usize) -> io::Result<Option<Heard>> {
    loop {
        ear.readable().await?;
        match ear.try_io(Interest::READABLE, || receive_now(ear, room)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

fn receive_now(ear: &Ear, room: usize) -> io::Result<Option<Heard>> {
    let (mut bytes, mut control) = (vec![0; room], [0; 64]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(ear.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
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
    bytes.truncate(length);
    Ok(from.map(|from| Heard { bytes, from }))
}

/// Only what can touch our routes, or the ways to endpoints: routes, links, addresses. What router advertisements bring comes and goes.
fn of_routes(heard: &Heard) -> Option<Notification> {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink, NewRoute};
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&heard.bytes).ok()?;
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    let matters = match inner {
        NewRoute(route) | DelRoute(route) => may_lead_to_endpoints(&route),
        NewAddress(_) | DelAddress(_) | NewLink(_) | DelLink(_) => true,
        _ => false,
    };
    matters.then_some(Notification::Routes(heard.from))
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

fn of_rules(heard: &Heard) -> Option<Notification> {
    let header = NetlinkBuffer::new_checked(&heard.bytes).ok()?;
    if header.message_type() != NEW_GENERATION {
        return None;
    }
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(&heard.bytes).ok()?;
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    Some(Notification::Rules(heard.from, generation_in(&inner)?))
}

fn generation_in(message: &NetfilterMessage) -> Option<u32> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(GenMessage { attributes, .. })) =
        &message.inner
    else {
        return None;
    };
    attributes.iter().find_map(|attribute| match attribute {
        GenAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

/// The generation of the nftables rules in the calling thread's namespace; it grows with every transaction. `None`: no nftables here.
pub fn generation() -> Option<u32> {
    let mut netlink = netfilter::Socket::open().ok()?;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let question = NetfilterMessage::new(
        header,
        NfTablesMessage::GetGen(GenMessage {
            attributes: Vec::new(),
        }),
    );
    generation_in(&netlink.ask(&question).ok()?)
}

thread_local! {
    /// Transactions this thread has made. A piece of work in a namespace has a thread of its own.
    static COMMITS: Cell<u32> = const { Cell::new(0) };
}

/// A writer of nftables rules made a transaction, itself or by a program.
pub(crate) fn committed() {
    COMMITS.set(COMMITS.get().wrapping_add(1));
}

/// What the generation is after this thread's transactions, if nobody else made one meanwhile.
pub(crate) fn own_generation(before: Option<u32>) -> Option<u32> {
    before.map(|before| before.wrapping_add(COMMITS.get()))
}

/// Whether `generation` came after `known`. Generations wrap around.
pub(crate) fn is_later(generation: u32, known: u32) -> bool {
    generation != known && generation.wrapping_sub(known) < 1 << 31
}

/// The node's name for `netns`; it gets one if it has none. A namespace does not live longer for it.
pub(crate) fn id_of(netns: &Netns) -> io::Result<NamespaceId> {
    let descriptor = u32::try_from(netns.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let mut netlink: Netlink<RouteNetlinkMessage> = Netlink::open(NETLINK_ROUTE)?;
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
        // Any free one.
        let assign = message(vec![NsidAttribute::Fd(descriptor), NsidAttribute::Id(-1)]);
        match netlink.change(&RouteNetlinkMessage::NewNsId(assign), 0) {
            // The CNI plugin was quicker.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Err(io::Error::other("the kernel assigns no namespace id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_wrap_around() {
        assert!(is_later(2, 1) && is_later(0, u32::MAX) && is_later(5, u32::MAX - 5));
        assert!(!is_later(1, 1) && !is_later(1, 2) && !is_later(u32::MAX, 0));
    }
}
