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

/// Deletes the entries of flows to these VIP ports that are translated elsewhere, or not at all, and of all flows that reached one of the
/// `new` VIPs themselves, whoever had its address before. Returns how many.
pub(crate) fn forget(changed: &Allowed, new: &BTreeSet<IpAddr>) -> io::Result<usize> {
    if changed.is_empty() && new.is_empty() {
        return Ok(0);
    }
    let mut netlink = Socket::open()?;
    let mut deleted = 0;
    let vips = changed.keys().map(|(vip, _)| vip).chain(new);
    let families: BTreeSet<Family> = vips.map(|vip| Family::of(*vip)).collect();
    for family in families {
        let all = about(family, ConntrackMessage::Get(Vec::new()));
        for original in netlink.dump_some(&all, |entry| stale(&entry, changed, new))? {
            match netlink.change(&about(family, ConntrackMessage::Delete(vec![original])), 0) {
                Ok(()) => deleted += 1,
                // It timed out meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(deleted)
}

/// The original tuple of an entry that has to go; it is what names an entry.
pub(crate) fn stale(
    entry: &NetfilterMessage,
    changed: &Allowed,
    new: &BTreeSet<IpAddr>,
) -> Option<ConntrackAttribute> {
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
