//! Deletion of stale connection tracking entries, which would keep a flow on a removed endpoint.
//!
//! Writes: deletes such entries in the calling thread's namespace. NAT is decided once per flow, and a UDP socket that keeps
//! sending keeps its flow alive forever: without a deletion it would be sent to a removed endpoint, or, when it began before the rules, to
//! no endpoint, or with a source address that replies do not reach. A rejected UDP flow has an entry, too, which has to be deleted when its
//! VIP is no longer served. TCP entries are deleted only for a VIP that was a foreign address before: translated TCP flows continue, as with
//! kube-proxy.

mod pending;
mod table;

pub use pending::Pending;

use crate::netlink::Netlink;
use crate::netlink::netfilter::{self, Socket};
use crate::netns::addresses::Addresses;
use crate::netns::counters::CONNTRACK_DELETIONS;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::{PodRules, Port, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Endpoints to which flows of each VIP port may be translated. See [`Delta::flows`](rules::Delta::flows).
pub(crate) type Allowed = BTreeMap<(IpAddr, Port), BTreeSet<SocketAddr>>;

/// Entries in memory at a time, and the number of rounds: the owner of a pod may open any number of flows.
const ROUND: usize = 4096;
const ROUNDS: usize = 64;

/// Identifies the pod's own flows among those that it forwards, and their expected source address.
pub(crate) struct Own<'a> {
    /// Addresses of the pod.
    pub(crate) addresses: &'a Addresses,
    /// Source of each VIP.
    pub(crate) rules: &'a PodRules,
}

impl Own<'_> {
    /// Returns true when a flow to `vip` from `source` should receive replies at another address than `answered_to`.
    fn is_misdirected(&self, vip: IpAddr, source: IpAddr, answered_to: IpAddr) -> bool {
        let right = self.rules.vip(vip).and_then(|(_, source)| source);
        right.is_some_and(|right| right.address != answered_to) && self.addresses.has(source)
    }
}

/// Returns true when the calling thread's namespace has no entry: then no flow began before its rules.
pub(crate) fn is_idle() -> bool {
    let counted = table::count(&mut netfilter::socket());
    counted.is_ok_and(|count| count == 0)
}

/// Deletes the flows that are stale under `rules`, the current rules of the calling thread's namespace.
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

/// Deletes the entries of all rejected flows, once no VIP is served.
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

/// Deletes the entries of flows to these VIP ports that are translated to other endpoints, or not at all, or have a wrong source address;
/// of all flows to the address of a `new` VIP before it was one; and of rejected flows to former VIPs. Continues after a failure, and returns
/// the first error.
fn forget(changed: &Allowed, new: &BTreeSet<IpAddr>, own: &Own<'_>) -> io::Result<()> {
    let mut netlink = netfilter::socket();
    for _ in 0..ROUNDS {
        if forget_some(&mut netlink, changed, new, own)? < ROUND {
            return Ok(());
        }
    }
    Err(io::Error::other(
        "too many connection tracking entries to delete at once",
    ))
}

/// Runs one round and returns the number of entries found. Continues after a failure, and returns the first error.
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
            // The entry timed out meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The kernel did not respond: each further request would wait as long.
            Err(error) if !netlink.is_sound() => return Err(error),
            Err(error) => result = result.and(Err(error)),
            Ok(()) => _ = CONNTRACK_DELETIONS.inc(),
        }
    }
    result
}

fn deletion(family: NetfilterProtoFamily, original: ConntrackAttribute) -> NetfilterMessage {
    let header = NetfilterHeader::new(family, 0, 0);
    NetfilterMessage::new(header, ConntrackMessage::Delete(vec![original]))
}

/// Returns the original tuple, which identifies an entry, of a stale entry.
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

/// Returns source and destination of a tuple.
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
