//! Reads the entries of a namespace in the cheapest complete way.
//!
//! Reads only. The kernel keeps the entries of all namespaces in one table. A dump by netlink locks each of its buckets, those of other
//! namespaces too (`ctnetlink_dump_table`): 5 ms for 262,144 buckets, for any number of entries. `/proc` walks the same buckets without
//! locks (`ct_get_first`): 0.2 ms. Kernels may be built without it (`CONFIG_NF_CONNTRACK_PROCFS`), and a list of several pages may lack an
//! entry. So it is used for few entries, and only if there are as many as the namespace counts. The count itself is a number that the
//! kernel keeps for each namespace: 3 µs, and where it is 0 nothing is read.

use crate::netlink::netfilter::Socket;
use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;

/// `IPCTNL_MSG_CT_GET_STATS`: of the namespace, not of a CPU.
const GET_STATS: u8 = 5;

/// `CTA_STATS_GLOBAL_ENTRIES`.
const ENTRIES: u16 = 1;

/// Largest number of entries that is read from `/proc`: some pages of text.
const FEW: u32 = 64;

/// Size of the text: a line has at most some 300 bytes.
const TEXT: u64 = 1 << 16;

const PROC: &str = "/proc/thread-self/net/nf_conntrack";

/// Returns the number of entries of the namespace, including unconfirmed ones (`__nf_conntrack_alloc` counts).
pub(super) fn count(netlink: &mut Socket) -> io::Result<u32> {
    let question = about_any(ConntrackMessage::Other {
        message_type: GET_STATS,
        attributes: Vec::new(),
    });
    let answer = netlink.ask(&question)?;
    number_in(&answer)
        .ok_or_else(|| io::Error::other("the kernel reports no number of connection tracking entries"))
}

fn number_in(answer: &NetfilterMessage) -> Option<u32> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::Other { attributes, .. }) = &answer.inner else {
        return None;
    };
    let entries = attributes.iter().find(|attribute| attribute.kind() == ENTRIES)?;
    let mut bytes = [0; 4];
    (entries.value_len() == bytes.len()).then(|| DefaultNla::emit_value(entries, &mut bytes))?;
    Some(u32::from_be_bytes(bytes))
}

/// Request for all entries of both families: one walk of the table.
pub(super) fn all() -> NetfilterMessage {
    about_any(ConntrackMessage::Get(Vec::new()))
}

fn about_any(message: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), message)
}

/// Returns all entries with ports, as a netlink dump has them. `None`: they are too many, or may be incomplete.
pub(super) fn few(netlink: &mut Socket, count_before: u32) -> Option<Vec<NetfilterMessage>> {
    if count_before > FEW {
        return None;
    }
    let mut text = String::new();
    File::open(PROC).ok()?.take(TEXT).read_to_string(&mut text).ok()?;
    let listed = u32::try_from(text.lines().count()).ok()?;
    // Expired entries are removed by the reader, so they are not counted afterwards.
    (listed == count(netlink).ok()?).then(|| text.lines().filter_map(entry).collect())
}

/// Parses an entry as `ct_seq_show` prints it:
/// `ipv4     2 udp      17 28 src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=C sport=2 dport=1 mark=0 use=2`.
fn entry(line: &str) -> Option<NetfilterMessage> {
    let mut words = line.split_ascii_whitespace();
    let family = match words.next()? {
        "ipv4" => NetfilterProtoFamily::IPv4,
        "ipv6" => NetfilterProtoFamily::IPv6,
        _ => return None,
    };
    let protocol: u8 = words.nth(2)?.parse().ok()?;
    let mut values = |key: &str| words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let mut tuple = || {
        let addresses = [values("src")?, values("dst")?].map(str::parse::<IpAddr>);
        let ports = [values("sport")?, values("dport")?].map(str::parse::<u16>);
        let ([Ok(source), Ok(destination)], [Ok(from), Ok(to)]) = (addresses, ports) else {
            return None;
        };
        Some(vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(source),
                IPTuple::DestinationAddress(destination),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol.into()),
                ProtoTuple::SourcePort(from),
                ProtoTuple::DestinationPort(to),
            ]),
        ])
    };
    let tuples = vec![
        ConntrackAttribute::CtaTupleOrig(tuple()?),
        ConntrackAttribute::CtaTupleReply(tuple()?),
    ];
    let header = NetfilterHeader::new(family, 0, 0);
    Some(NetfilterMessage::new(header, ConntrackMessage::New(tuples)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "ipv4     2 udp      17 28 src=10.0.0.1 dst=172.30.0.10 sport=39685 dport=53 [UNREPLIED] src=10.1.0.2 dst=10.1.0.7 sport=5353 dport=39685 mark=0 zone=0 use=2";
    const TCP: &str = "ipv6     10 tcp      6 431999 ESTABLISHED src=fd00::1 dst=fd00::2 sport=1 dport=80 src=fd00::2 dst=fd00::1 sport=80 dport=1 [ASSURED] mark=0 use=2";
    const PING: &str = "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=2";

    fn shown(line: &str) -> Option<String> {
        entry(line).map(|entry| format!("{:?} {:?}", entry.header.family, entry.inner))
    }

    #[test]
    fn lines_are_parsed_like_netlink_entries() {
        let udp = shown(UDP).unwrap();
        for part in ["IPv4", "172.30.0.10", "39685", "10.1.0.7", "5353", "Udp"] {
            assert!(udp.contains(part), "{part}: {udp}");
        }
        let (original, reply) = udp.split_once("CtaTupleReply").unwrap();
        assert!(
            original.contains("DestinationAddress(172.30.0.10)") && reply.contains("SourceAddress(10.1.0.2)")
        );
        let tcp = shown(TCP).unwrap();
        assert!(tcp.contains("IPv6") && tcp.contains("Tcp"), "{tcp}");
        assert_eq!(shown(PING), None, "no ports");
    }

    #[test]
    fn lines_without_an_entry_are_skipped() {
        for line in [
            "",
            "ipv4",
            "ipv4 2 udp x",
            "ipx 2 udp 17 28",
            &UDP[..UDP.len() / 2],
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
