//! Connection tracking entries that would keep a flow on an endpoint that may not have it any more.
//!
//! Writes: deletes such entries in the calling thread's namespace. NAT is decided once per flow, and a UDP socket that keeps
//! sending keeps its flow alive for ever: without this it would be sent to a removed endpoint for good, or, when it began before
//! the rules, to nobody, or with a source address to which no answer comes. A rejected UDP flow has an entry, too, which has to go when its
//! VIP is ours no more. Of TCP only flows to a VIP that was somebody else's
//! address until now are: translated ones live on as with kube-proxy.

mod pending;
mod table;

pub use pending::Pending;

use crate::netlink::Netlink;
use crate::netlink::netfilter::Socket;
use crate::netns::addresses::Addresses;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::{PodRules, Port, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// For each VIP port: the endpoints its flows may be translated to. See [`Delta::flows`](rules::Delta::flows).
pub(crate) type Allowed = BTreeMap<(IpAddr, Port), BTreeSet<SocketAddr>>;

/// Entries that are held in memory at a time, and how often so many are looked for: the owner of a pod begins as many flows as he likes.
const ROUND: usize = 4096;
const ROUNDS: usize = 64;

/// What tells the pod's own flows from those that it forwards, and the source address that they should have.
pub(crate) struct Own<'a> {
    /// The pod's.
    pub(crate) addresses: &'a Addresses,
    /// With the source of each VIP.
    pub(crate) rules: &'a PodRules,
}

impl Own<'_> {
    /// Whether a flow to `vip` that began at `source` should get its answers elsewhere than at `answered_to`.
    fn is_misdirected(&self, vip: IpAddr, source: IpAddr, answered_to: IpAddr) -> bool {
        let right = self.rules.vip(vip).and_then(|(_, source)| source);
        right.is_some_and(|right| right.address != answered_to) && self.addresses.has(source)
    }
}

/// Whether the calling thread's namespace has no entry: then no flow began before its rules.
pub(crate) fn is_idle() -> bool {
    let counted = Socket::open().and_then(|mut netlink| table::count(&mut netlink));
    counted.is_ok_and(|count| count == 0)
}

/// Ends the flows that are wrong under `rules`, which the calling thread's namespace has.
pub(crate) fn clean(pending: &Pending, rules: &PodRules) -> io::Result<()> {
    if !pending.is_due() || is_idle() {
        return Ok(());
    }
    let (changed, new) = pending.under(rules);
    let addresses = Addresses::read(&mut Netlink::open(NETLINK_ROUTE)?)?;
    let own = Own {
        addresses: &addresses,
        rules,
    };
    forget(&changed, &new, &own)
}

/// Deletes the entries of all rejected flows, once no VIP is ours.
pub(crate) fn forget_rejected() -> io::Result<()> {
    if is_idle() {
        return Ok(());
    }
    let own = Own {
        addresses: &Addresses::default(),
        rules: &PodRules::default(),
    };
    forget(&Allowed::new(), &BTreeSet::new(), &own)
}

/// Deletes the entries of flows to these VIP ports that are translated elsewhere, or not at all, or leave with another source address
/// than they should, of all flows that reached one of the `new` VIPs themselves, to any earlier owner of its address, and of rejected ones to
/// what is no VIP any more. Goes on past what fails, and returns the first of it.
fn forget(changed: &Allowed, new: &BTreeSet<IpAddr>, own: &Own<'_>) -> io::Result<()> {
    let mut netlink = Socket::open()?;
    for _ in 0..ROUNDS {
        if forget_some(&mut netlink, changed, new, own)? < ROUND {
            return Ok(());
        }
    }
    Err(io::Error::other(
        "there are more of them than can be deleted at once",
    ))
}

/// One round: how many entries were found. Goes on past what fails, and returns the first of it.
fn forget_some(
    netlink: &mut Socket,
    changed: &Allowed,
    new: &BTreeSet<IpAddr>,
    own: &Own<'_>,
) -> io::Result<usize> {
    let mut found = 0;
    let mut pick = |entry: NetfilterMessage| {
        let stale = (found < ROUND).then(|| stale(&entry, changed, new, own))?;
        found += usize::from(stale.is_some());
        stale.map(|original| (entry.header.family, original))
    };
    let count = table::count(netlink).unwrap_or(u32::MAX);
    let stale = match table::few(netlink, count) {
        Some(entries) => entries.into_iter().filter_map(pick).collect(),
        None => netlink.dump_some(&table::all(), &mut pick)?,
    };
    let mut result = Ok(stale.len());
    for (family, original) in stale {
        match netlink.change(&deletion(family, original), 0) {
            // It timed out meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The kernel did not answer: each further request would wait as long.
            Err(error) if !netlink.is_sound() => return Err(error),
            Err(error) => result = result.and(Err(error)),
            Ok(()) => {}
        }
    }
    result
}

fn deletion(family: NetfilterProtoFamily, original: ConntrackAttribute) -> NetfilterMessage {
    let header = NetfilterHeader::new(family, 0, 0);
    NetfilterMessage::new(header, ConntrackMessage::Delete(vec![original]))
}

/// The original tuple of an entry that has to go; it is what names an entry.
pub(crate) fn stale(
    entry: &NetfilterMessage,
    changed: &Allowed,
    new: &BTreeSet<IpAddr>,
    own: &Own<'_>,
) -> Option<ConntrackAttribute> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &entry.inner else {
        return None;
    };
    let (mut original, mut reply) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some((attribute, ends(tuple)?)),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(ends(tuple)?),
            _ => {}
        }
    }
    let (attribute, ((source, _), (vip, port))) = original?;
    let ((endpoint, endpoint_port), (answered_to, _)) = reply?;
    let is_rejected = endpoint.is_loopback() && endpoint_port.number == 0;
    if endpoint == vip && new.contains(&vip) || is_rejected && own.rules.vip(vip).is_none() {
        return Some(attribute.clone());
    }
    let allowed = changed.get(&(vip, port))?;
    let is_allowed = allowed.contains(&SocketAddr::new(endpoint, endpoint_port.number))
        && !own.is_misdirected(vip, source, answered_to);
    (!is_allowed).then(|| attribute.clone())
}

/// Source and destination of a tuple.
fn ends(tuple: &[Tuple]) -> Option<((IpAddr, Port), (IpAddr, Port))> {
    let (mut source, mut destination, mut protocol, mut source_port, mut destination_port) =
        (None, None, None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => addresses.iter().for_each(|address| match address {
                IPTuple::SourceAddress(address) => source = Some(*address),
                IPTuple::DestinationAddress(address) => destination = Some(*address),
                _ => {}
            }),
            Tuple::Proto(ports) => ports.iter().for_each(|port| match port {
                ProtoTuple::Protocol(number) => {
                    protocol = Protocol::ALL
                        .into_iter()
                        .find(|protocol| protocol.number() == u8::from(*number));
                }
                ProtoTuple::SourcePort(number) => source_port = Some(*number),
                ProtoTuple::DestinationPort(number) => destination_port = Some(*number),
                _ => {}
            }),
            _ => {}
        }
    }
    let protocol = protocol?;
    let port = |number| Port { protocol, number };
    Some((
        (source?, port(source_port?)),
        (destination?, port(destination_port?)),
    ))
}
