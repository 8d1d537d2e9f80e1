//! Fuzz tests: no listing of the kernel in a hostile pod and no object of a tenant causes a panic, or unbounded time or memory.
//! `make fuzz` runs them for longer. Those of private decoders are beside them (`fuzz_tests` of `nftables` and `cri`).
//!
//! The corpus is what a kernel listed: see [`record`].

pub(crate) mod objects;
mod record;

use crate::netlink::{parts, read, write};
use crate::netns::{addresses, conntrack, routes};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;
use std::collections::{BTreeMap, BTreeSet};
use testbed::fuzz;

/// Links, addresses and routes.
const ROUTE: &str = include_str!("fuzz_tests/route.hex");
/// Tables, chains, rules, sets and elements, managed and foreign; the generation.
pub(crate) const NFTABLES: &str = include_str!("fuzz_tests/nftables.hex");
/// Connection tracking entries.
const CONNTRACK: &str = include_str!("fuzz_tests/conntrack.hex");

/// Parses a message of routing netlink; `None` when it is malformed.
fn decode_route(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match read(message).ok()?.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

pub(crate) fn decode_netfilter(message: &[u8]) -> Option<NetfilterMessage> {
    match read(message).ok()?.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

fn read_route(message: RouteNetlinkMessage) {
    match &message {
        RouteNetlinkMessage::NewLink(link) => {
            let _ = (addresses::name(link), addresses::parent(link));
        }
        RouteNetlinkMessage::NewAddress(address) => {
            let _ = (
                addresses::on_link(address),
                addresses::local(address),
                addresses::duplicate(address),
            );
        }
        RouteNetlinkMessage::NewRoute(_) => _ = routes::own(&message),
        _ => {}
    }
    // A route of the archived proxy is deleted as it was listed.
    if let Some((_, route)) = routes::legacy_route(message) {
        let request = RouteNetlinkMessage::DelRoute(route);
        let mut datagram = Vec::new();
        write(&mut datagram, &request, 0, 1);
        assert!(
            decode_route(&datagram).is_some(),
            "what is deleted cannot be read"
        );
    }
}

fn read_conntrack(message: &NetfilterMessage) {
    use netlink_packet_netfilter::conntrack::ConntrackMessage;
    let new = BTreeSet::from([[172, 30, 0, 10].into()]);
    let own = conntrack::Own {
        addresses: &addresses::Addresses::default(),
        rules: &rules::PodRules::default(),
    };
    // An entry is deleted by the tuple that was listed.
    if let Some(original) = conntrack::stale(message, &BTreeMap::new(), &new, &own) {
        let delete = ConntrackMessage::Delete(vec![original]);
        let request = crate::netlink::netfilter::about(api::Family::V4, delete);
        let mut datagram = Vec::new();
        write(&mut datagram, &request, 0, 1);
        assert!(
            decode_netfilter(&datagram).is_some(),
            "what is deleted cannot be read"
        );
    }
}

#[test]
fn the_corpus_can_be_read() {
    let route = fuzz::from_hex(ROUTE);
    let netfilter = [fuzz::from_hex(NFTABLES), fuzz::from_hex(CONNTRACK)].concat();
    assert!(route.len() >= 10 && netfilter.len() >= 20);
    assert!(route.iter().all(|message| decode_route(message).is_some()));
    assert!(
        netfilter
            .iter()
            .all(|message| decode_netfilter(message).is_some())
    );
}

#[test]
fn fuzz_links_addresses_and_routes() {
    fuzz::bytes(&fuzz::from_hex(ROUTE), |message| {
        if let Some(message) = decode_route(message) {
            read_route(message);
        }
    });
}

#[test]
fn fuzz_connection_tracking() {
    fuzz::bytes(&fuzz::from_hex(CONNTRACK), |message| {
        if let Some(message) = decode_netfilter(message) {
            read_conntrack(&message);
        }
    });
}

#[test]
fn fuzz_datagrams() {
    let datagrams = [ROUTE, NFTABLES, CONNTRACK].map(|messages| fuzz::from_hex(messages).concat());
    fuzz::bytes(&datagrams, |datagram| {
        let (mut count, mut length) = (0, 0);
        for message in parts(datagram) {
            (count, length) = (count + 1, length + message.len());
            // Both families: a type that one does not know is passed over.
            if let Some(message) = decode_route(message) {
                read_route(message);
            }
            let _ = decode_netfilter(message);
        }
        assert!(count <= datagram.len().div_ceil(4) && length <= datagram.len());
    });
}
