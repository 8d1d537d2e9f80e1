//! Connection tracking entries that would keep a flow on an endpoint that may not have it any more.
//!
//! Writes: deletes such entries in the calling thread's namespace. NAT is decided once per flow, and a UDP socket that keeps
//! sending keeps its flow alive for ever: without this it would be sent to a removed endpoint for good, or, when it began before
//! the rules, to nobody. Of TCP only flows to a VIP that was somebody else's address until now are: translated ones live on as with kube-proxy.

use crate::netfilter::{Socket, about};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use rules::{Family, Port, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// For each VIP port: the endpoints its flows may be translated to. See [`Delta::flows`](rules::Delta::flows).
pub(crate) type Allowed = BTreeMap<(IpAddr, Port), BTreeSet<SocketAddr>>;

/// Entries that are held in memory at a time, and how often so many are looked for: the owner of a pod begins as many flows as he likes.
const ROUND: usize = 4096;
const ROUNDS: usize = 64;

/// Deletes the entries of flows to these VIP ports that are translated elsewhere, or not at all, and of all flows that reached one of the
/// `new` VIPs themselves, whoever had its address before. Goes on past what fails, and returns the first of it.
pub(crate) fn forget(changed: &Allowed, new: &BTreeSet<IpAddr>) -> io::Result<()> {
    if changed.is_empty() && new.is_empty() {
        return Ok(());
    }
    let mut netlink = Socket::open()?;
    let mut result = Ok(());
    let vips = changed.keys().map(|(vip, _)| vip).chain(new);
    let families: BTreeSet<Family> = vips.map(|vip| Family::of(*vip)).collect();
    for family in families {
        result = result.and(forget_of(&mut netlink, family, changed, new));
    }
    result
}

fn forget_of(
    netlink: &mut Socket,
    family: Family,
    changed: &Allowed,
    new: &BTreeSet<IpAddr>,
) -> io::Result<()> {
    for _ in 0..ROUNDS {
        if forget_some(netlink, family, changed, new)? < ROUND {
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
    family: Family,
    changed: &Allowed,
    new: &BTreeSet<IpAddr>,
) -> io::Result<usize> {
    let mut found = 0;
    let all = about(family, ConntrackMessage::Get(Vec::new()));
    let stale = netlink.dump_some(&all, |entry| {
        let stale = (found < ROUND).then(|| stale(&entry, changed, new))?;
        found += usize::from(stale.is_some());
        stale
    })?;
    let mut result = Ok(stale.len());
    for original in stale {
        match netlink.change(&about(family, ConntrackMessage::Delete(vec![original])), 0) {
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

/// The original tuple of an entry that has to go; it is what names an entry.
fn stale(entry: &NetfilterMessage, changed: &Allowed, new: &BTreeSet<IpAddr>) -> Option<ConntrackAttribute> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &entry.inner else {
        return None;
    };
    let mut original = None;
    let mut replied_from = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some((attribute, ends(tuple)?.1)),
            ConntrackAttribute::CtaTupleReply(tuple) => replied_from = Some(ends(tuple)?.0),
            _ => {}
        }
    }
    let (attribute, (vip, port)) = original?;
    let (endpoint, endpoint_port) = replied_from?;
    if endpoint == vip && new.contains(&vip) {
        return Some(attribute.clone());
    }
    let allowed = changed.get(&(vip, port))?;
    (!allowed.contains(&SocketAddr::new(endpoint, endpoint_port.number))).then(|| attribute.clone())
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
