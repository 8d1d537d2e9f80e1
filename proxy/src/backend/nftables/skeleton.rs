//! The rules of our table: everything but elements.
//!
//! Pure. What is here is written once per table or once per [`Class`]; endpoints and Services are elements.

use super::encode::{
    Expression, Header, destination_port, drop_packet, equals, goto, has_local_source, has_tcp_reset, is_in,
    is_invalid, is_new_flow, is_translated, jump, leaves_not_by, random, reject_with_reset, remember,
    transport_protocol, value_of,
};
use super::layout::{
    AFFINITY, Class, DISPATCH, ENDPOINTS, SOURCES, Shape, VERSION, VIPS, balancer, clients,
    is_chain_of_a_class, is_set_of_a_class,
};
use super::statement::{
    SetKind, Statement, delete_chain, delete_set, delete_table, empty_chain, new_base_chain, new_chain,
    new_rule, new_set, new_table,
};
use netlink_packet_netfilter::nftables::{ChainAttribute, InetHookNumber, NfTablesMessage, SetAttribute};
use rules::{Family, Protocol};
use std::collections::BTreeSet;

/// A chain that the kernel calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseChain {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) hook: InetHookNumber,
    pub(super) priority: i32,
}

/// Before every other NAT of the pod (-100), a sidecar's among them: the first that translates a flow wins.
const BEFORE_NAT: i32 = -101;
const AFTER_NAT: i32 = -99;
/// Before every other source translation of the pod (100).
const BEFORE_SOURCE_NAT: i32 = 99;
/// The interface on the cluster network, in every pod.
const CLUSTER_INTERFACE: &str = "eth0";

/// What still goes to a VIP here was not translated.
const FILTER: i32 = 0;

/// The chains that translate.
pub(super) const TRANSLATION: [BaseChain; 2] = [
    base("output", "nat", InetHookNumber::LocalOut, BEFORE_NAT),
    base("prerouting", "nat", InetHookNumber::PreRouting, BEFORE_NAT),
];
/// The chain that gives flows the pod's address on the network of their VIP. The kernel enters it once per flow.
pub(super) const SOURCE: BaseChain = base("source", "nat", InetHookNumber::PostRouting, BEFORE_SOURCE_NAT);
/// The chains that reject.
pub(super) const REJECTION: [BaseChain; 2] = [
    base("reject-output", "filter", InetHookNumber::LocalOut, FILTER),
    base("reject-forwarded", "filter", InetHookNumber::Forward, FILTER),
];
/// The chains that remember which endpoint a client got; only where there is session affinity.
pub(super) const MEMORY: [BaseChain; 2] = [
    base("remember", "filter", InetHookNumber::LocalOut, AFTER_NAT),
    base(
        "remember-forwarded",
        "filter",
        InetHookNumber::PreRouting,
        AFTER_NAT,
    ),
];

const fn base(name: &'static str, kind: &'static str, hook: InetHookNumber, priority: i32) -> BaseChain {
    BaseChain {
        name,
        kind,
        hook,
        priority,
    }
}

/// What the table says about itself. A table with other words is rebuilt.
pub(super) fn comment() -> String {
    format!("multus-service layout {VERSION}")
}

/// A table without elements, in place of whatever has its name. On a node, which `is_pod` is not, what is forwarded is not translated, for
/// its pods would come onto networks that they are not on; and what is no flow of ours is left as it was.
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
        // Deleting needs something to delete.
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

/// The names of what a table has in any case.
#[derive(Debug, Default)]
pub(super) struct Names {
    chains: BTreeSet<String>,
    sets: BTreeSet<String>,
}

impl Names {
    /// Of tables in pods, which have all that tables on nodes have.
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

    /// Whether a set of this name may be ours.
    pub(super) fn have_set(&self, name: &str) -> bool {
        self.sets.contains(name) || is_set_of_a_class(name)
    }

    /// Whether a chain of this name may be ours.
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
        // Not what is forwarded: its source is another host's.
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
        // An answer that connection tracking does not believe, for it is outside of the window, comes from the endpoint and not from
        // the VIP. Nobody here waits for that, and the kernel's reset, which belongs to no flow either, would end the real one. The
        // cluster network is left as it was.
        let unbelieved = leaves_not_by(CLUSTER_INTERFACE).into_iter().chain(tcp());
        let unbelieved = unbelieved.chain(has_tcp_reset()).chain(is_invalid());
        rules.push(unbelieved.chain([drop_packet()]).collect());
    }
    rules
}

/// A rejected UDP flow of the pod's own goes to a port that no socket can have: the kernel answers with "port unreachable", as the node
/// does to clients of kube-proxy. Rejected on its way out, `send()` would fail with EPERM, which programs take for a firewall.
fn reject_udp(header: &Header) -> Vec<Expression> {
    let mut rule = vec![transport_protocol(0), equals(0, Protocol::Udp.number())];
    rule.extend([header.destination(0), is_in(VIPS, 0)]);
    rule.extend(header.closed_port(0));
    rule.push(header.dnat(0));
    rule
}

/// Adds sets, chains and rules of `class`, which must not be there. `id` and the next are any numbers that no other set of the
/// batch has.
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
            // The chains may be there for another affinity: making them again is nothing.
            statements.extend(MEMORY.map(new_base_chain));
        }
    }
    statements.extend(ways_to(&header, class));
    statements
}

/// The rules by which packets come to a class, in chains that are there in any case.
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

/// Takes away the classes that are `there` and not `used`. The others, and whom they remember, stay as they are; a flow sees their
/// rules taken away and made again as one change.
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

/// The rules that pick one of `count` endpoints. The first that gets through ends the walk.
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
        // A flow that begins while endpoints are being removed may look for one that has just gone; the first is there as
        // long as any is.
        rules.push(pick(1));
    }
    rules
}

fn known_client(header: &Header, seconds: u32) -> Vec<Expression> {
    let mut rule = Vec::from(header.service(0));
    rule.extend([
        header.source(header.width + 2),
        value_of(&clients(seconds), 0, 0),
        header.dnat(0),
    ]);
    rule
}

/// Reads the endpoint where it is after translation. (That it could be taken from `eps` while translating is of no use: `nft list`
/// of version 1.0 dies of a value that comes from another map.) A flow is new until it is answered: a client that asks a removed
/// endpoint again and again must not be remembered there, so it has to be one that is there still.
fn remember_client(header: &Header, seconds: u32) -> Vec<Expression> {
    let endpoint = 2 * header.width + 2;
    let mut rule = Vec::from(is_new_flow());
    // Not what began before the rules, or is rejected.
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
