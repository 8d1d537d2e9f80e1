//! Records what a kernel lists, as the corpus: `cargo test -p proxy --lib fuzz_tests::record -- --ignored` (root).
//!
//! Writes: the files `*.hex` beside this one; a network namespace that is thrown away.

use super::objects;
use crate::backend::Backend;
use crate::backend::nftables::Nftables;
use crate::netlink::Netlink;
use crate::netlink::netfilter::about;
use crate::netns::Netns;
use api::Family;
use netlink_packet_core::{NetlinkDeserializable, NetlinkSerializable};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleMessage, SetAttribute, SetElementList, SetElementMessage, SetMessage,
    TableMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rules::Delta;
use std::path::Path;
use std::process::Command;
use testbed::{command, fuzz};

const SCENE: &str = "
    ip link set lo up
    ip link add parent type veth peer name other
    ip link add net1 link parent type macvlan mode bridge
    ip link add net2 link parent type ipvlan 2>/dev/null || true
    ip link set parent up; ip link set other up; ip link set net1 up
    ip address add 10.1.0.2/16 dev net1
    ip address add fd00:1::2/64 dev net1 nodad
    ip address add 10.9.0.1 peer 10.9.0.2 dev other
    ip route add 172.30.0.10 dev net1 src 10.1.0.2 proto 77
    ip route add fd00:96::a dev net1 src fd00:1::2 proto 77
    ip route add 172.30.0.11/32 dev net1 src 10.1.0.2 proto kernel scope global
    ip route add 10.7.0.0/16 nexthop via 10.1.0.3 nexthop via 10.1.0.4
    ip route add blackhole 10.8.0.0/16
    conntrack -I -p udp -s 10.1.0.2 -d 172.30.0.10 --sport 1000 --dport 53 --timeout 100
    conntrack -I -p tcp -s 10.1.0.2 -d 172.30.0.10 --sport 1000 --dport 80 --state ESTABLISHED --timeout 100
    conntrack -I -p udp -s fd00:1::2 -d fd00:96::a --sport 1000 --dport 53 --timeout 100
    nft 'table inet foreign {
        comment \"of somebody else\"
        set many { type ipv4_addr . inet_service; flags interval, timeout; elements = { 10.0.0.0/8 . 1-9, 192.0.2.1 . 80 timeout 1h }; }
        map where { type ipv4_addr : verdict; elements = { 10.0.0.1 : accept, 10.0.0.2 : drop }; }
        chain in { type filter hook input priority 0; policy accept;
            ip saddr . tcp dport @many counter log prefix \"foreign\" limit rate 1/second reject
            ip daddr vmap @where
            meta mark set ct mark & 0xff tcp flags syn / syn,ack
        }
    }'
";

#[test]
#[ignore = "records the corpus; needs root, iproute2, conntrack and nftables"]
fn record() {
    let [route, nftables, conntrack] = Netns::scratch(|| {
        command::run_with_input(&mut Command::new("sh"), &format!("set -e\n{SCENE}")).unwrap();
        let rules = objects::planned(&objects::corpus()).unwrap().rules;
        let delta = Delta::from_nothing(&rules);
        Nftables.reject(&delta).unwrap();
        Nftables.translate(&delta).unwrap();
        [route(), nftables(), conntrack()]
    })
    .unwrap();
    for (name, messages) in [("route", route), ("nftables", nftables), ("conntrack", conntrack)] {
        assert!(!messages.is_empty(), "{name}");
        let lines: Vec<_> = messages.iter().map(|message| fuzz::hex(message) + "\n").collect();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/fuzz_tests/{name}.hex"));
        std::fs::write(file, lines.concat()).unwrap();
    }
}

fn listed<M>(protocol: isize, requests: impl IntoIterator<Item = M>) -> Vec<Vec<u8>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    let mut netlink = Netlink::open(protocol).unwrap();
    let mut messages = Vec::new();
    for request in requests {
        messages.extend(
            netlink
                .dump_unread(&request, |message| Ok(Some(message.to_vec())))
                .unwrap(),
        );
    }
    messages
}

fn route() -> Vec<Vec<u8>> {
    let requests = [
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        RouteNetlinkMessage::GetRoute(RouteMessage::default()),
    ];
    listed(NETLINK_ROUTE, requests)
}

fn nftables() -> Vec<Vec<u8>> {
    // What is in no family's own list is in that of all.
    let of_any = |message: NfTablesMessage| {
        let mut request = about(Family::V4, message);
        request.header.family = netlink_packet_netfilter::NetfilterProtoFamily::Unspec;
        request
    };
    let lists = [
        NfTablesMessage::GetTable(TableMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetRule(RuleMessage {
            attributes: Vec::new(),
        }),
        NfTablesMessage::GetSet(SetMessage {
            attributes: Vec::new(),
        }),
    ];
    let mut messages: Vec<Vec<u8>> = listed(NETLINK_NETFILTER, lists.map(of_any));
    let elements: Vec<NetfilterMessage> = messages
        .iter()
        .filter_map(|message| elements_of(message))
        .collect();
    messages.extend(listed(NETLINK_NETFILTER, elements));
    messages
}

/// The request for the elements of a set that is listed.
fn elements_of(set: &[u8]) -> Option<NetfilterMessage> {
    let listed = super::decode_netfilter(set)?;
    let netlink_packet_netfilter::NetfilterMessageInner::NfTables(NfTablesMessage::NewSet(set)) =
        listed.inner
    else {
        return None;
    };
    let attributes = set
        .attributes
        .into_iter()
        .filter_map(|attribute| match attribute {
            SetAttribute::Table(table) => Some(SetElementList::Table(table)),
            SetAttribute::Name(name) => Some(SetElementList::Set(name)),
            _ => None,
        });
    let message = NfTablesMessage::GetSetElement(SetElementMessage {
        attributes: attributes.collect(),
    });
    Some(NetfilterMessage::new(listed.header, message))
}

fn conntrack() -> Vec<Vec<u8>> {
    let requests = Family::ALL.map(|family| about(family, ConntrackMessage::Get(Vec::new())));
    listed(NETLINK_NETFILTER, requests)
}
