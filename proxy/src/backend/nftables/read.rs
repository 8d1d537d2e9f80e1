//! Parser of the table.
//!
//! Pure. The expected content follows from the code that writes it; any other content is drift, and the table is rebuilt.

use super::encode::Expression;
use super::layout::{AFFINITY, Class, DISPATCH, ENDPOINTS, SOURCES, VIPS, clients};
use super::skeleton::{self, MEMORY};
use super::statement::Element;
use api::names::NFT_TABLE;
use netlink_packet_core::{DecodeError, NlasIterator, Parseable};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, DataAttribute, ExpressionAttribute, Expressions, Hook, ListAttribute, NfTablesMessage,
    RuleAttribute, SetAttribute, SetElementAttribute,
};
use rules::{Family, KernelState, Places, Port, Protocol, Translated};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Table as the kernel lists it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) comment: Option<Vec<u8>>,
    pub(super) chains: BTreeMap<String, FoundChain>,
    pub(super) sets: BTreeMap<String, FoundSet>,
    /// Foreign sets and chains. Their content was not read.
    pub(super) foreign: Foreign,
    /// Reason why only the comment was read.
    pub(super) unread: Option<String>,
}

/// Foreign sets and chains in our table.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    count: usize,
    /// First names.
    named: BTreeSet<String>,
}

impl Foreign {
    /// Largest number of names.
    const NAMED: usize = 3;

    /// Adds a "set" or a "chain".
    pub(super) fn add(&mut self, kind: &str, name: &str) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.insert(format!("{kind} {name} is not ours"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn describe(&self) -> impl Iterator<Item = String> {
        let more = self.count.saturating_sub(self.named.len());
        let more = (more > 0).then(|| format!("{more} more sets and chains are not ours"));
        self.named.iter().cloned().chain(more)
    }
}

/// Chain of the table.
#[derive(Debug, Default)]
pub(super) struct FoundChain {
    attributes: Vec<ChainAttribute>,
    pub(super) rules: Vec<Vec<Expression>>,
}

impl FoundChain {
    /// Parses a chain of our table, without its rules.
    pub(super) fn parse(attributes: Vec<ChainAttribute>) -> Option<(String, Self)> {
        let ours = attributes.contains(&ChainAttribute::Table(NFT_TABLE.to_owned()));
        let name = attributes.iter().find_map(|attribute| match attribute {
            ChainAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        let name = name.filter(|_| ours)?;
        Some((
            name,
            Self {
                attributes,
                rules: Vec::new(),
            },
        ))
    }
}

/// Set or map of the table.
#[derive(Debug, Default)]
pub(super) struct FoundSet {
    attributes: Vec<SetAttribute>,
    /// Elements; those of maps from clients to endpoints are not kept.
    pub(super) elements: Vec<Element>,
    /// For such a map: it maps a client to a removed endpoint. A proxy left the entry that ended before it could
    /// [forget](has_to_be_forgotten) the client.
    pub(super) is_outdated: bool,
}

impl FoundSet {
    /// Parses a named set, without its elements.
    pub(super) fn parse(attributes: Vec<SetAttribute>) -> Option<(String, Self)> {
        let name = attributes.iter().find_map(|attribute| match attribute {
            SetAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        Some((
            name?,
            Self {
                attributes,
                elements: Vec::new(),
                is_outdated: false,
            },
        ))
    }
}

/// Attributes of `linux/netfilter/nf_tables.h`: the list of elements in a message, and an element of the list.
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;

/// Length of the netlink and nfnetlink headers before the attributes of a message.
const HEADERS: usize = 16 + 4;

/// Parses the elements of one message, which lists hundreds. One by one: the crate would format the whole list for each of them as a
/// possible error.
pub(super) fn elements(message: &[u8]) -> Result<Vec<Element>, DecodeError> {
    let mut elements = Vec::new();
    for list in NlasIterator::new(message.get(HEADERS..).unwrap_or_default()) {
        let list = list?;
        if list.kind() != NFTA_SET_ELEM_LIST_ELEMENTS {
            continue;
        }
        for listed in NlasIterator::new(list.value()) {
            let listed = listed?;
            if listed.kind() == NFTA_LIST_ELEM {
                let attributes = NlasIterator::new(listed.value()).map(|it| SetElementAttribute::parse(&it?));
                elements.extend(element(attributes.collect::<Result<_, _>>()?));
            }
        }
    }
    Ok(elements)
}

fn element(attributes: Vec<SetElementAttribute>) -> Option<Element> {
    let (mut key, mut value) = (None, None);
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    Some(Element { key: key?, value })
}

/// Adds the content of a family's table, and its drift, to `dump`.
pub(super) fn read(family: Family, is_pod: bool, found: &Found, dump: &mut KernelState) {
    let unread = found.unread.iter().cloned().chain(found.foreign.describe());
    dump.unread.extend(unread.map(|what| format!("{family}: {what}")));
    if found.unread.is_some() {
        return;
    }
    let mut damage = structure(family, is_pod, found);
    let elements = |set: &str| {
        found
            .sets
            .get(set)
            .map(|set| set.elements.as_slice())
            .unwrap_or_default()
    };
    let vips = elements(VIPS).iter();
    dump.rejected
        .extend(vips.filter_map(|element| Parts::new(family, &element.key).address()));
    // By the same set.
    dump.rejected_udp.extend(&dump.rejected);
    for element in elements(SOURCES) {
        match source(family, element) {
            Some((vip, source)) => _ = dump.sources.insert(vip, source),
            None => _ = damage.insert(format!("map {SOURCES} holds something else than addresses")),
        }
    }
    let mut slots: BTreeMap<(IpAddr, Port), Vec<(u32, SocketAddr)>> = BTreeMap::new();
    for element in elements(ENDPOINTS) {
        match slot(family, element) {
            Some((port, index, endpoint)) => slots.entry(port).or_default().push((index, endpoint)),
            None => _ = damage.insert(format!("map {ENDPOINTS} holds something else than endpoints")),
        }
    }
    let classes = found.sets.keys().filter_map(|set| Class::of_set(set));
    let (mut counts, affinities) = (BTreeMap::new(), affinities(family, found));
    for class in classes {
        for element in elements(&class.set()) {
            let mut parts = Parts::new(family, &element.key);
            let is_as_written = parts.service().is_some_and(|port| match class {
                Class::Count(count) => counts.insert(port, count).is_none(),
                Class::Affinity(seconds) => {
                    let sticky = affinities.get(&port);
                    sticky.is_some_and(|sticky| sticky.seconds == seconds) && parts.endpoint().is_some()
                }
            });
            if !is_as_written {
                damage.insert(format!("set {} holds a port that is elsewhere", class.set()));
            }
        }
        if let Class::Affinity(seconds) = class
            && found
                .sets
                .get(&clients(seconds))
                .is_some_and(|map| map.is_outdated)
        {
            damage.insert(format!(
                "map {} remembers endpoints that are gone",
                clients(seconds)
            ));
        }
    }
    if slots.keys().ne(counts.keys()) || affinities.keys().any(|port| !counts.contains_key(port)) {
        damage.insert("ports and endpoints do not match".to_owned());
    }
    for (port, slots) in &mut slots {
        slots.sort_unstable();
        let by_place = || slots.iter().map(|(_, endpoint)| *endpoint);
        // Any order is valid; a gap, or an endpoint in two places, is drift.
        let places = Places::of(by_place().collect());
        let is_one_each = places.is_some();
        let endpoints = places.unwrap_or_else(|| by_place().collect());
        let as_written = is_one_each
            && slots
                .iter()
                .map(|(index, _)| *index)
                .eq(0..slots.len().try_into().unwrap_or(u32::MAX))
            && counts
                .get(port)
                .is_none_or(|count| *count as usize == endpoints.len())
            && affinities
                .get(port)
                .is_none_or(|sticky| sticky.members == endpoints.to_set());
        if !as_written {
            damage.insert(format!("the endpoints of {} are not as written", port.0));
        }
        let affinity = affinities
            .get(port)
            .map(|sticky| Duration::from_secs(sticky.seconds.into()));
        dump.translated.insert(*port, Translated { endpoints, affinity });
    }
    dump.damage
        .extend(damage.into_iter().map(|what| format!("{family}: {what}")));
}

/// Ports with affinity.
pub(super) type Affinities = BTreeMap<(IpAddr, Port), Sticky>;

/// Reads the ports with affinity from the sets of endpoints that may be remembered.
pub(super) fn affinities(family: Family, found: &Found) -> Affinities {
    let mut affinities = Affinities::new();
    for (name, set) in &found.sets {
        let Some(Class::Affinity(seconds)) = Class::of_set(name) else {
            continue;
        };
        for element in &set.elements {
            let mut parts = Parts::new(family, &element.key);
            if let Some(port) = parts.service() {
                let sticky = affinities.entry(port).or_insert_with(|| Sticky::new(seconds));
                sticky.members.extend(parts.endpoint());
            }
        }
    }
    affinities
}

/// Port with affinity.
pub(super) struct Sticky {
    seconds: u32,
    /// Endpoints that may be remembered.
    members: BTreeSet<SocketAddr>,
}

impl Sticky {
    fn new(seconds: u32) -> Self {
        Self {
            seconds,
            members: BTreeSet::new(),
        }
    }
}

/// Returns true when the endpoint of a client still exists.
pub(super) fn is_with_a_member(
    family: Family,
    client: &Element,
    seconds: u32,
    affinities: &Affinities,
) -> bool {
    let port = Parts::new(family, &client.key).service();
    let sticky = port.and_then(|port| affinities.get(&port));
    let value = client.value.as_deref().unwrap_or_default();
    let endpoint = Parts::new(family, value).endpoint();
    sticky
        .zip(endpoint)
        .is_some_and(|(sticky, endpoint)| sticky.seconds == seconds && sticky.members.contains(&endpoint))
}

/// Upper bound of the number of rules of our table with these classes: a class has three at most.
pub(super) fn most_rules(found: &Found) -> usize {
    let classes = found.sets.keys().filter(|set| Class::of_set(set).is_some());
    64 + 4 * classes.count()
}

/// Returns the drift of everything except elements.
fn structure(family: Family, is_pod: bool, found: &Found) -> BTreeSet<String> {
    let mut damage = BTreeSet::new();
    if found.comment.as_deref() != Some(&*super::statement::as_comment(&skeleton::comment())) {
        damage.insert("the table has another layout".to_owned());
    }
    let (mut sets, mut rules) = (BTreeSet::new(), BTreeMap::<String, Vec<Vec<Expression>>>::new());
    let classes = found.sets.keys().filter_map(|set| Class::of_set(set));
    let of_classes = classes.flat_map(|class| skeleton::class(family, class, 0));
    for statement in skeleton::fresh_table(family, is_pod)
        .into_iter()
        .chain(of_classes)
    {
        match statement.message {
            NfTablesMessage::NewSet(set) => {
                if let Some((name, wanted)) = FoundSet::parse(set.attributes) {
                    if !found
                        .sets
                        .get(&name)
                        .is_some_and(|found| is_like(&wanted.attributes, &found.attributes))
                    {
                        damage.insert(format!("set {name} is missing or another"));
                    }
                    sets.insert(name);
                }
            }
            NfTablesMessage::NewChain(chain) => {
                if let Some((name, wanted)) = FoundChain::parse(chain.attributes) {
                    if !found
                        .chains
                        .get(&name)
                        .is_some_and(|found| is_hooked_like(&wanted, found))
                    {
                        damage.insert(format!("chain {name} is missing or another"));
                    }
                    rules.entry(name).or_default();
                }
            }
            NfTablesMessage::NewRule(rule) => {
                let (mut chain, mut expressions) = (String::new(), Vec::new());
                for attribute in rule.attributes {
                    match attribute {
                        RuleAttribute::Chain(name) => chain = name,
                        RuleAttribute::Expressions(list) => expressions = list,
                        _ => {}
                    }
                }
                rules.entry(chain).or_default().push(expressions);
            }
            _ => {}
        }
    }
    let foreign_sets = found.sets.keys().filter(|set| !sets.contains(*set));
    damage.extend(foreign_sets.map(|set| format!("set {set} is not ours")));
    for (name, chain) in &found.chains {
        match rules.get(name) {
            None => _ = damage.insert(format!("chain {name} is not ours")),
            // The rules of a table with foreign chains were not read.
            Some(wanted) if found.foreign.is_empty() && !are_the_rules(name, wanted, &chain.rules) => {
                damage.insert(format!("chain {name} has other rules"));
            }
            Some(_) => {}
        }
    }
    damage
}

/// Compares types and lengths; the kernel adds attributes of its own.
fn is_like(wanted: &[SetAttribute], found: &[SetAttribute]) -> bool {
    wanted.iter().all(|attribute| match attribute {
        // The id exists only while the set is created; newer kernels add parts to the description.
        SetAttribute::Id(_) | SetAttribute::Description(_) => true,
        // Not listed when there are none.
        SetAttribute::Flags(flags) if flags.is_empty() => true,
        _ => found.contains(attribute),
    })
}

fn is_hooked_like(wanted: &FoundChain, found: &FoundChain) -> bool {
    wanted.attributes.iter().all(|attribute| match attribute {
        ChainAttribute::Hook(wanted) => found.attributes.iter().any(|attribute| match attribute {
            ChainAttribute::Hook(found) => wanted.iter().all(|part| hooks_alike(part, found)),
            _ => false,
        }),
        _ => found.attributes.contains(attribute),
    })
}

fn hooks_alike(wanted: &Hook, found: &[Hook]) -> bool {
    found.iter().any(|found| match (wanted, found) {
        (Hook::Number(wanted), Hook::Number(found)) => u32::from(*wanted) == u32::from(*found),
        (wanted, found) => wanted == found,
    })
}

/// Classes add rules in the order in which they occur, so the order of these rules does not matter.
fn are_the_rules(chain: &str, wanted: &[Vec<Expression>], found: &[Vec<Expression>]) -> bool {
    let any_order =
        chain == DISPATCH || chain == AFFINITY || MEMORY.iter().any(|memory| memory.name == chain);
    wanted.len() == found.len()
        && if any_order {
            wanted
                .iter()
                .all(|wanted| found.iter().any(|found| is_the_rule(wanted, found)))
        } else {
            wanted
                .iter()
                .zip(found)
                .all(|(wanted, found)| is_the_rule(wanted, found))
        }
}

fn is_the_rule(wanted: &[Expression], found: &[Expression]) -> bool {
    wanted.len() == found.len()
        && wanted
            .iter()
            .zip(found)
            .all(|(wanted, found)| is_the_expression(wanted, found))
}

/// Every written attribute is listed; the kernel adds some with their default.
fn is_the_expression(wanted: &Expression, found: &Expression) -> bool {
    let (ListAttribute::Element(wanted), ListAttribute::Element(found)) = (wanted, found) else {
        return false;
    };
    wanted.iter().all(|attribute| match attribute {
        ExpressionAttribute::Data(wanted) => found.iter().any(|attribute| match attribute {
            ExpressionAttribute::Data(found) => has_all(wanted, found),
            _ => false,
        }),
        attribute => found.contains(attribute),
    })
}

fn has_all(wanted: &Expressions, found: &Expressions) -> bool {
    fn within<T: PartialEq>(wanted: &[T], found: &[T]) -> bool {
        wanted.iter().all(|attribute| found.contains(attribute))
    }
    match (wanted, found) {
        (Expressions::Bitwise(wanted), Expressions::Bitwise(found)) => within(wanted, found),
        (Expressions::Cmp(wanted), Expressions::Cmp(found)) => within(wanted, found),
        (Expressions::Immediate(wanted), Expressions::Immediate(found)) => within(wanted, found),
        (Expressions::Lookup(wanted), Expressions::Lookup(found)) => within(wanted, found),
        (Expressions::Meta(wanted), Expressions::Meta(found)) => within(wanted, found),
        (Expressions::Payload(wanted), Expressions::Payload(found)) => within(wanted, found),
        (
            Expressions::Other {
                attributes: wanted, ..
            },
            Expressions::Other {
                attributes: found, ..
            },
        ) => within(wanted, found),
        _ => false,
    }
}

/// Returns true when an entry of an affinity map refers to an endpoint that the port no longer has.
pub(super) fn has_to_be_forgotten(
    family: Family,
    client: &Element,
    keep: &BTreeMap<(IpAddr, Port), &Places>,
) -> bool {
    let port = Parts::new(family, &client.key).service();
    let Some(keep) = port.and_then(|port| keep.get(&port)) else {
        return false;
    };
    let value = client.value.as_ref();
    let endpoint = value.and_then(|value| Parts::new(family, value).endpoint());
    endpoint.is_none_or(|endpoint| !keep.contains(&endpoint))
}

fn slot(family: Family, element: &Element) -> Option<((IpAddr, Port), u32, SocketAddr)> {
    let mut key = Parts::new(family, &element.key);
    let port = key.service()?;
    let index = key.index()?;
    let endpoint = Parts::new(family, element.value.as_ref()?).endpoint()?;
    Some((port, index, endpoint))
}

fn source(family: Family, element: &Element) -> Option<(IpAddr, IpAddr)> {
    let vip = Parts::new(family, &element.key).address()?;
    let source = Parts::new(family, element.value.as_ref()?).address()?;
    Some((vip, source))
}

/// Parses a key or value, the inverse of [`Bytes`](super::layout::Bytes).
struct Parts<'a> {
    family: Family,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn new(family: Family, bytes: &'a [u8]) -> Self {
        Self { family, rest: bytes }
    }

    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    fn service(&mut self) -> Option<(IpAddr, Port)> {
        let vip = self.address()?;
        let [number, ..] = self.take::<4>()?;
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)?;
        let number = self.port()?;
        Some((vip, Port { protocol, number }))
    }

    fn endpoint(&mut self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address()?, self.port()?))
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }

    fn index(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}
