//! Rules of `sessionAffinity: ClientIP`: a map remembers the endpoint of each client.
//!
//! Pure.

use super::encode::{
    Expression, Header, destination_port, is_in, is_new_flow, is_translated, remember, value_of,
};
use super::layout::{Class, clients};
use super::statement::BaseChain;
use netlink_packet_netfilter::nftables::InetHookNumber;

/// Priority after the NAT of the pod (-100): the endpoint is known.
const AFTER_NAT: i32 = -99;

/// Chains that remember the endpoint of a client; only with session affinity.
pub(super) const MEMORY: [BaseChain; 2] = [
    BaseChain::new("remember", "filter", InetHookNumber::LocalOut, AFTER_NAT),
    BaseChain::new(
        "remember-forwarded",
        "filter",
        InetHookNumber::PreRouting,
        AFTER_NAT,
    ),
];

/// Returns the rule that sends a flow of a remembered client to its endpoint.
pub(super) fn known_client(header: &Header, seconds: u32) -> Vec<Expression> {
    let mut rule = Vec::from(header.service(0));
    rule.extend([
        header.source(header.width + 2),
        value_of(&clients(seconds), 0, 0),
        header.dnat(0),
    ]);
    rule
}

/// Reads the endpoint after translation. (It cannot be copied from `eps` during translation: `nft list` of version 1.0 crashes on a value
/// from another map.) A flow is new until it has a reply: a client that retries a removed endpoint must not be remembered there, so the rule
/// matches only existing endpoints.
pub(super) fn remember_client(header: &Header, seconds: u32) -> Vec<Expression> {
    let endpoint = 2 * header.width + 2;
    let mut rule = Vec::from(is_new_flow());
    // Not flows that began before the rules, or are rejected.
    rule.extend(is_translated());
    rule.extend(header.original_service(0));
    rule.extend([
        header.destination(header.width + 2),
        destination_port(2 * header.width + 2),
        is_in(&Class::Affinity(seconds).set(), 0),
        header.source(header.width + 2),
        header.destination(endpoint),
        destination_port(endpoint + header.width),
        remember(&clients(seconds), 0, endpoint),
    ]);
    rule
}
