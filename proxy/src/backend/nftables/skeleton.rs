//! Rules of our table: everything except elements.
//!
//! Pure. This part is written once per table or once per [`Class`]; endpoints and Services are elements.

use super::encode::{
    Expression, Header, drop_packet, equals, goto, has_local_source, has_tcp_reset, is_in, is_invalid,
    is_translated, jump, leaves_not_by, random, reject_with_reset, transport_protocol, value_of,
};
use super::layout::{
    AFFINITY, Class, DISPATCH, ENDPOINTS, SOURCES, Shape, VERSION, VIPS, balancer, clients,
    is_chain_of_a_class, is_set_of_a_class,
};
use super::session_affinity::{MEMORY, known_client, remember_client};
use super::statement::{
    BaseChain, SetKind, Statement, delete_chain, delete_set, delete_table, empty_chain, new_base_chain,
    new_chain, new_rule, new_set, new_table,
};
use api::Family;
use netlink_packet_netfilter::nftables::{ChainAttribute, InetHookNumber, NfTablesMessage, SetAttribute};
use rules::Protocol;
use std::collections::BTreeSet;

/// Priority before every other NAT of the pod (-100), that of a sidecar included: the first that translates a flow wins.
const BEFORE_NAT: i32 = -101;
/// Priority before every other source translation of the pod (100).
const BEFORE_SOURCE_NAT: i32 = 99;
/// Interface on the cluster network, in every pod.
const CLUSTER_INTERFACE: &str = "eth0";

/// Priority of the filter chains: a packet that still has a VIP as its destination was not translated.
const FILTER: i32 = 0;

/// Chains that translate.
pub(super) const TRANSLATION: [BaseChain; 2] = [
    BaseChain::new("output", "nat", InetHookNumber::LocalOut, BEFORE_NAT),
    BaseChain::new("prerouting", "nat", InetHookNumber::PreRouting, BEFORE_NAT),
];
/// Chain that sets the source of flows to the pod's address on the network of their VIP. The kernel enters it once per flow.
pub(super) const SOURCE: BaseChain =
    BaseChain::new("source", "nat", InetHookNumber::PostRouting, BEFORE_SOURCE_NAT);
/// Chains that reject.
pub(super) const REJECTION: [BaseChain; 2] = [
    BaseChain::new("reject-output", "filter", InetHookNumber::LocalOut, FILTER),
    BaseChain::new("reject-forwarded", "filter", InetHookNumber::Forward, FILTER),
];
/// Returns the comment of the table. A table with another comment is rebuilt.
pub(super) fn comment() -> String {
    format!("multus-service layout {VERSION}")
}

/// Returns a table without elements, which replaces any table of its name. On a node, where `is_pod` is false, forwarded packets are not
/// translated, because pods would reach networks that they are not attached to; and foreign flows are not changed.
pub(super) fn fresh_table(family: Family, is_pod: bool) -> Vec<Statement> {
    let endpoints = SetKind {
        value: Some(Shape::endpoint(family)),
        timeout: None,
    };
    let sources = SetKind {
        value: Some(Shape::vip(family)),
        timeout: None,
    };
    let mut statements = vec![
        // A deletion fails without a table.
        new_table(&comment()),
        delete_table(),
        new_table(&comment()),
        new_set(VIPS, 1, Shape::vip(family), SetKind::default()),
        new_set(ENDPOINTS, 2, Shape::slot(family), endpoints),
        new_set(SOURCES, 3, Shape::vip(family), sources),
        new_chain(AFFINITY),
        new_chain(DISPATCH),
    ];
    let translation = TRANSLATION
        .into_iter()
        .filter(|chain| is_pod || chain.name == TRANSLATION[0].name);
    for chain in translation.chain([SOURCE]).chain(REJECTION) {
        statements.push(new_base_chain(chain));
        let rules = base_rules(family, chain, is_pod);
        statements.extend(rules.into_iter().map(|rule| new_rule(chain.name, rule)));
    }
    statements
}

/// Names of the sets and chains of every table.
#[derive(Debug, Default)]
pub(super) struct Names {
    chains: BTreeSet<String>,
    sets: BTreeSet<String>,
}

impl Names {
    /// Returns the names of tables in pods, which include those of tables on nodes.
    pub(super) fn of(family: Family) -> Self {
        let mut names = Self::default();
        for statement in fresh_table(family, true) {
            match statement.message {
                NfTablesMessage::NewSet(set) => names
                    .sets
                    .extend(set.attributes.into_iter().find_map(name_of_set)),
                NfTablesMessage::NewChain(chain) => {
                    names
                        .chains
                        .extend(chain.attributes.into_iter().find_map(name_of_chain));
                }
                _ => {}
            }
        }
        names.chains.extend(MEMORY.map(|chain| chain.name.to_owned()));
        names
    }

    /// Returns true when a set of this name may be ours.
    pub(super) fn have_set(&self, name: &str) -> bool {
        self.sets.contains(name) || is_set_of_a_class(name)
    }

    /// Returns true when a chain of this name may be ours.
    pub(super) fn have_chain(&self, name: &str) -> bool {
        self.chains.contains(name) || is_chain_of_a_class(name)
    }
}

fn name_of_set(attribute: SetAttribute) -> Option<String> {
    match attribute {
        SetAttribute::Name(name) => Some(name),
        _ => None,
    }
}

fn name_of_chain(attribute: ChainAttribute) -> Option<String> {
    match attribute {
        ChainAttribute::Name(name) => Some(name),
        _ => None,
    }
}

fn base_rules(family: Family, chain: BaseChain, is_pod: bool) -> Vec<Vec<Expression>> {
    let header = Header::of(family);
    if chain.name == SOURCE.name {
        // Not forwarded packets: their source is another host.
        let local = is_translated().into_iter().chain(has_local_source());
        let to_source = [
            header.original_destination(0),
            value_of(SOURCES, 0, 0),
            header.snat(0),
        ];
        return vec![local.chain(to_source).collect()];
    }
    if chain.kind == "nat" {
        let mut rules = vec![vec![jump(AFFINITY)], vec![jump(DISPATCH)]];
        if chain.name == TRANSLATION[0].name {
            rules.push(reject_udp(&header));
        }
        return rules;
    }
    let to_vip = || [header.destination(0), is_in(VIPS, 0)];
    let tcp = || [transport_protocol(0), equals(0, Protocol::Tcp.number())];
    let mut rules = vec![
        to_vip()
            .into_iter()
            .chain(tcp())
            .chain([reject_with_reset()])
            .collect(),
        to_vip()
            .into_iter()
            .chain([header.reject_unreachable()])
            .collect(),
    ];
    if is_pod {
        // A reply outside of the window is invalid to connection tracking: it comes from the endpoint and not from the VIP. No socket
        // waits for it, and the kernel's reset, which belongs to no flow either, would end the real connection. Packets on the cluster
        // network are not changed.
        let unbelieved = leaves_not_by(CLUSTER_INTERFACE).into_iter().chain(tcp());
        let unbelieved = unbelieved.chain(has_tcp_reset()).chain(is_invalid());
        rules.push(unbelieved.chain([drop_packet()]).collect());
    }
    rules
}

/// A rejected UDP flow of the pod's own goes to a port that no socket can have: the kernel answers with "port unreachable", as the node
/// does to clients of kube-proxy. A rejection in the output hook would make `send()` fail with EPERM, which programs report as a firewall.
fn reject_udp(header: &Header) -> Vec<Expression> {
    let mut rule = vec![transport_protocol(0), equals(0, Protocol::Udp.number())];
    rule.extend([header.destination(0), is_in(VIPS, 0)]);
    rule.extend(header.closed_port(0));
    rule.push(header.dnat(0));
    rule
}

/// Adds sets, chains and rules of `class`, which must not exist. `id` and the next one are numbers that no other set of the batch has.
pub(super) fn class(family: Family, class: Class, id: u32) -> Vec<Statement> {
    let header = Header::of(family);
    let shape = match class {
        Class::Count(_) => Shape::service(family),
        Class::Affinity(_) => Shape::member(family),
    };
    let mut statements = vec![new_set(&class.set(), id, shape, SetKind::default())];
    match class {
        Class::Count(count) => {
            let chain = balancer(count);
            statements.push(new_chain(&chain));
            statements.extend(
                balance(&header, count)
                    .into_iter()
                    .map(|rule| new_rule(&chain, rule)),
            );
        }
        Class::Affinity(seconds) => {
            let kind = SetKind {
                value: Some(Shape::endpoint(family)),
                timeout: Some(seconds),
            };
            statements.push(new_set(&clients(seconds), id + 1, Shape::client(family), kind));
            // The chains may exist for another affinity: creating them again has no effect.
            statements.extend(MEMORY.map(new_base_chain));
        }
    }
    statements.extend(ways_to(&header, class));
    statements
}

/// Returns the rules that lead packets to a class, in chains that always exist.
fn ways_to(header: &Header, class: Class) -> Vec<Statement> {
    match class {
        Class::Count(count) => {
            let dispatch = header.service(0).into_iter();
            let dispatch = dispatch.chain([is_in(&class.set(), 0), goto(&balancer(count))]);
            vec![new_rule(DISPATCH, dispatch.collect())]
        }
        Class::Affinity(seconds) => {
            let known = new_rule(AFFINITY, known_client(header, seconds));
            let remember = MEMORY.map(|chain| new_rule(chain.name, remember_client(header, seconds)));
            std::iter::once(known).chain(remember).collect()
        }
    }
}

/// Removes the classes that are `there` and not `used`. The others, and their remembered clients, stay; a flow sees the removal and
/// recreation of their rules as one change.
pub(super) fn collect(family: Family, there: &BTreeSet<Class>, used: &BTreeSet<Class>) -> Vec<Statement> {
    let header = Header::of(family);
    let is_affinity = |class: &Class| matches!(class, Class::Affinity(_));
    let mut shared = vec![DISPATCH, AFFINITY];
    if there.iter().any(is_affinity) {
        shared.extend(MEMORY.map(|chain| chain.name));
    }
    let mut statements: Vec<_> = shared.into_iter().map(empty_chain).collect();
    statements.extend(used.iter().flat_map(|class| ways_to(&header, *class)));
    for class in there.difference(used) {
        match class {
            Class::Count(count) => {
                statements.extend([empty_chain(&balancer(*count)), delete_chain(&balancer(*count))]);
            }
            Class::Affinity(seconds) => statements.push(delete_set(&clients(*seconds))),
        }
        statements.push(delete_set(&class.set()));
    }
    if there.iter().any(is_affinity) && !used.iter().any(is_affinity) {
        statements.extend(MEMORY.map(|chain| delete_chain(chain.name)));
    }
    statements
}

/// Returns the rules that select one of `count` endpoints. The first that matches ends the chain.
fn balance(header: &Header, count: u32) -> Vec<Vec<Expression>> {
    let pick = |below| {
        let picked = [
            random(below, header.width + 2),
            value_of(ENDPOINTS, 0, 0),
            header.dnat(0),
        ];
        header.service(0).into_iter().chain(picked).collect()
    };
    let mut rules = vec![pick(count)];
    if count > 1 {
        // A flow that begins while endpoints are removed may select one that no longer exists; the first exists as long as any does.
        rules.push(pick(1));
    }
    rules
}
