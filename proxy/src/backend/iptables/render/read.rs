//! Parser of the listing of our chains by `iptables -S`.
//!
//! Pure. Only translations and rejections are parsed; the result is rendered again, and every difference between the two texts is
//! drift. So no change of another process remains undetected.

use super::buckets::vip_of;
use super::translation::{Entry, whole_of};
use super::{Chains, Jump, Table, rejected_udp, rejection, sources};
use api::Family;
use api::names::CHAIN_PREFIX;
use rules::{KernelState, Places, Port, Protocol, Translated};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Largest number of different chains that are named.
const MOST_NAMED: usize = 8;

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Our chains.
    pub(crate) chains: Chains,
    /// Missing jumps to them.
    pub(crate) missing_jumps: Vec<Jump>,
    /// Jumps after foreign rules, which may translate a flow first.
    pub(crate) late_jumps: Vec<Jump>,
    /// Reason why the rules of our chains were not read.
    pub(crate) unread: Option<String>,
}

impl Listing {
    /// Returns the listing of a table without our chains.
    pub(crate) fn empty(table: Table, is_pod: bool) -> Self {
        Self {
            chains: Chains::new(),
            missing_jumps: table.jumps(is_pod),
            late_jumps: Vec::new(),
            unread: None,
        }
    }

    /// Parses our chains and jumps.
    pub(crate) fn parse(table: Table, is_pod: bool, text: &str) -> Self {
        let mut listing = Self::default();
        for jump in table.jumps(is_pod) {
            match position(&jump, text) {
                None => listing.missing_jumps.push(jump),
                Some(1..) if table == Table::Nat => listing.late_jumps.push(jump),
                Some(_) => {}
            }
        }
        for line in text.lines() {
            let (command, rest) = line.split_once(' ').unwrap_or_default();
            let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            if !chain.starts_with(CHAIN_PREFIX) {
                continue;
            }
            let rules = listing.chains.entry(chain.to_owned()).or_default();
            if command == "-A" {
                rules.push(rule.to_owned());
            }
        }
        listing
    }
}

/// Returns the number of rules before this one.
fn position((hook, rule): &Jump, text: &str) -> Option<usize> {
    let before = format!("-A {hook} ");
    let mut rules = text.lines().filter_map(|line| line.strip_prefix(&before));
    rules.position(|found| found == rule)
}

/// Adds the tables of one family to `dump`.
pub(crate) fn read(filter: &Listing, nat: &Listing, family: Family, is_pod: bool, dump: &mut KernelState) {
    for (table, listing) in [(Table::Filter, filter), (Table::Nat, nat)] {
        let why = listing.unread.iter();
        let why = why.map(|why| format!("{family} {}: failed to list rules: {why}", table.name()));
        dump.unread.extend(why);
    }
    let to_reject_chain = rejection::to_reject_chain();
    let rejected: BTreeSet<IpAddr> = filter
        .chains
        .values()
        .flatten()
        .filter_map(|rule| vip_of(rule, &to_reject_chain))
        .collect();
    let translated = translated(&nat.chains);
    let sources = sources::read(&nat.chains);
    let rejected_udp = rejected_udp::read(&nat.chains, family);
    let is_there = !filter.chains.is_empty() || !translated.is_empty();
    if is_there && filter.unread.is_none() {
        let again = rejection::whole(&rejected, family, is_pod);
        compare(Table::Filter, family, filter, &again, &mut dump.damage);
    }
    let is_there = !nat.chains.is_empty() || !rejected.is_empty();
    if is_there && nat.unread.is_none() {
        let entries: Vec<_> = translated
            .iter()
            .map(|((vip, port), (comment, translated))| Entry {
                vip: *vip,
                port: *port,
                comment: comment.clone(),
                translation: translated.as_translation(),
            })
            .collect();
        let mut again = whole_of(&entries, &rejected_udp, family);
        again.extend(sources::whole(&sources));
        compare(Table::Nat, family, nat, &again, &mut dump.damage);
    }
    dump.sources.extend(sources);
    dump.rejected_udp.extend(rejected_udp);
    dump.rejected.extend(rejected);
    dump.translated.extend(
        translated
            .into_iter()
            .map(|(at, (_, translated))| (at, translated)),
    );
}

fn compare(table: Table, family: Family, held: &Listing, again: &Chains, damage: &mut BTreeSet<String>) {
    let table = format!("{family} {}", table.name());
    let hooks = held.missing_jumps.iter();
    damage.extend(hooks.map(|(hook, rule)| format!("{table}: {hook} lacks the rule {rule:?}")));
    let late = held.late_jumps.iter();
    damage.extend(late.map(|(hook, rule)| format!("{table}: {hook} has foreign rules before {rule:?}")));
    let names: BTreeSet<&String> = held.chains.keys().chain(again.keys()).collect();
    let differing = names
        .into_iter()
        .filter(|chain| held.chains.get(*chain) != again.get(*chain));
    damage.extend(
        differing
            .take(MOST_NAMED)
            .map(|chain| format!("{table}: chain {chain} was changed")),
    );
}

type Read = BTreeMap<(IpAddr, Port), (String, Translated)>;

fn translated(chains: &Chains) -> Read {
    let ports = chains.values().flatten().filter_map(|rule| {
        let (address, _) = after(rule, "-d ")?.split_once('/')?;
        let port = Port {
            protocol: protocol(after(rule, "-p ")?)?,
            number: after(rule, "--dport ")?.parse().ok()?,
        };
        let comment = after(rule, "--comment ")?.trim_matches('"').to_owned();
        let translated = endpoints(chains, after(rule, "-j ")?);
        Some(((address.parse().ok()?, port), (comment, translated)))
    });
    ports.collect()
}

/// Returns the endpoints of the chain of a port.
fn endpoints(chains: &Chains, chain: &str) -> Translated {
    let rules = || chains.get(chain).into_iter().flatten();
    let below = rules()
        .filter_map(|rule| chains.get(after(rule, "-j ")?))
        .flatten();
    let targets = rules()
        .chain(below)
        .filter_map(|rule| after(rule, "--to-destination ")?.parse().ok());
    // The rule of the last place comes first. With affinity each place has two.
    let mut seen = BTreeSet::<SocketAddr>::new();
    let mut by_place: Vec<SocketAddr> = targets.filter(|target| seen.insert(*target)).collect();
    by_place.reverse();
    let seconds = rules().find_map(|rule| after(rule, "--seconds ")?.parse().ok());
    Translated {
        endpoints: Places::of(by_place).unwrap_or_default(),
        affinity: seconds.map(Duration::from_secs),
    }
}

/// Returns the word after an option.
fn after<'a>(rule: &'a str, option: &str) -> Option<&'a str> {
    let (_, rest) = rule.split_once(option)?;
    rest.split(' ').next()
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.to_string() == name)
}
