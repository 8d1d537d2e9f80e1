//! Translation in the nat table: new flows to a port go to one of its endpoints.
//!
//! Pure.

use super::buckets::{along, bucket};
use super::edits::edits;
use super::{Chains, Change, buckets, host, rejected_udp, sources};
use api::Family;
use api::names::CHAIN_PREFIX;
use rules::{Delta, Places, PodRules, Port, PortChange, Translation};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) const ROOT: &str = "SERVICES";

/// Translated port.
pub(super) struct Entry<'a> {
    pub(super) vip: IpAddr,
    pub(super) port: Port,
    /// Comment of the rules: Service and port name.
    pub(super) comment: String,
    pub(super) translation: Translation<'a>,
}

/// Returns all chains that translate flows by `rules` in `family`, and reject UDP flows to `rejected_udp`.
pub(super) fn whole(rules: &PodRules, rejected_udp: &BTreeSet<IpAddr>, family: Family) -> Chains {
    whole_of(&entries(rules, family), rejected_udp, family)
}

pub(super) fn whole_of(entries: &[Entry<'_>], rejected_udp: &BTreeSet<IpAddr>, family: Family) -> Chains {
    let mut leaves: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for entry in entries {
        leaves.entry(bucket(entry.vip)).or_default().push(dispatch(entry));
    }
    let mut chains = buckets::whole(ROOT, family, leaves);
    add_to_root(&mut chains);
    chains.extend(rejected_udp::whole(rejected_udp, family));
    let ports = entries
        .iter()
        .map(|entry| port_chains(entry.vip, entry.port, entry.translation));
    chains.extend(ports.flatten());
    chains
}

/// Returns the change of `delta` in `family`.
pub fn translation(delta: &Delta<'_>, family: Family) -> Change {
    let mut change = sources::change(delta, family);
    let mut touched: BTreeSet<u8> = BTreeSet::new();
    let of_family = |vip: &IpAddr| Family::of(*vip) == family;
    for ((vip, port), ports) in delta.ports.iter().filter(|((vip, _), _)| of_family(vip)) {
        change_port(*vip, *port, *ports, &mut change);
        if ports.old.is_some() != ports.new.is_some() {
            touched.insert(bucket(*vip));
        }
    }
    touched.extend(
        delta
            .renamed
            .iter()
            .filter(|vip| of_family(vip))
            .map(|vip| bucket(*vip)),
    );
    if !touched.is_empty() {
        let (set, delete) = along(ROOT, family, leaves(delta.wanted(), family, &touched), &touched);
        change.set.extend(set);
        change.delete.extend(delete);
        add_to_root(&mut change.set);
    }
    let Change { set, delete, .. } = rejected_udp::change(delta, family);
    change.set.extend(set);
    change.delete.extend(delete);
    change
}

/// Adds the jump to the rejection of UDP, after all translations.
fn add_to_root(chains: &mut Chains) {
    let root = format!("{CHAIN_PREFIX}{ROOT}");
    chains.entry(root).or_default().push(rejected_udp::jump());
}

/// Returns the change of the chains of one port.
fn change_port(vip: IpAddr, port: Port, PortChange { old, new }: PortChange<'_>, change: &mut Change) {
    let service = service_chain(vip, port);
    match (old, new) {
        (Some(old), Some(new)) => {
            let (held, wanted) = (Walk::of(vip, port, old), Walk::of(vip, port, new));
            match edits(&service, &held.parts(), &wanted.parts()) {
                Some(edits) => change.edits.extend(edits),
                None => _ = change.set.insert(service, wanted.rules()),
            }
        }
        (_, Some(new)) => _ = change.set.insert(service, Walk::of(vip, port, new).rules()),
        (Some(_), None) => _ = change.delete.insert(service),
        (None, None) => {}
    }
    // With affinity each endpoint has a chain of its own. The list of its clients exists until that chain is written again.
    let (old, new) = [old, new].map(remembering).into();
    for came in new.into_iter().flat_map(|new| new.not_in(old)) {
        let (chain, rules) = endpoint_rules(vip, port, came);
        change.set.insert(chain, rules);
    }
    for gone in old.into_iter().flat_map(|old| old.not_in(new)) {
        change.delete.insert(endpoint_chain(vip, port, gone));
    }
}

fn entries(rules: &PodRules, family: Family) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for (vip, (vip_rules, source)) in rules.vips(family) {
        for (port, port_rules) in &vip_rules.ports {
            let separator = if port_rules.name.is_empty() { "" } else { ":" };
            if let Some(translation) = port_rules.translation(source) {
                entries.push(Entry {
                    vip,
                    port: *port,
                    comment: format!("{}{separator}{}", vip_rules.service, port_rules.name),
                    translation,
                });
            }
        }
    }
    entries
}

/// Returns the rules of touched buckets, and the existence of the others.
fn leaves(rules: &PodRules, family: Family, touched: &BTreeSet<u8>) -> BTreeMap<u8, Vec<String>> {
    let mut leaves: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for entry in entries(rules, family) {
        let leaf = leaves.entry(bucket(entry.vip)).or_default();
        if touched.contains(&bucket(entry.vip)) {
            leaf.push(dispatch(&entry));
        }
    }
    leaves
}

fn dispatch(entry: &Entry<'_>) -> String {
    let Entry {
        vip, port, comment, ..
    } = entry;
    let Port { protocol, number } = port;
    let chain = service_chain(*vip, *port);
    format!(
        "-d {} -p {protocol} -m {protocol} --dport {number} -m comment --comment \"{comment}\" -j {chain}",
        host(*vip)
    )
}

/// Returns the endpoints that have a chain.
fn remembering(translation: Option<Translation<'_>>) -> Option<&Places> {
    let translation = translation?;
    translation.affinity.map(|_| translation.endpoints)
}

/// Returns the chains of one port. With affinity each endpoint has a chain of its own, which records the client.
fn port_chains(vip: IpAddr, port: Port, translation: Translation<'_>) -> Chains {
    let mut chains = Chains::from([(service_chain(vip, port), Walk::of(vip, port, translation).rules())]);
    if translation.affinity.is_some() {
        let endpoints = translation.endpoints.iter();
        chains.extend(endpoints.map(|endpoint| endpoint_rules(vip, port, *endpoint)));
    }
    chains
}

/// Returns the chain of an endpoint with affinity.
fn endpoint_rules(vip: IpAddr, port: Port, endpoint: SocketAddr) -> (String, Vec<String>) {
    let chain = endpoint_chain(vip, port, endpoint);
    let recent = recent("--set", &chain, Family::of(vip));
    let rule = format!("-p {} -m recent {recent} {}", port.protocol, dnat(endpoint));
    (chain, vec![rule])
}

fn dnat(endpoint: SocketAddr) -> String {
    format!("-j DNAT --to-destination {endpoint}")
}

/// Chain of a port in the order of evaluation. In each part the rule of place 0 is the last, so that the rule of an endpoint does not depend
/// on the number of others: a further endpoint is a rule before all others.
struct Walk {
    /// Rules of clients that affinity remembers.
    known: Vec<String>,
    /// Rules of all other clients.
    choice: Vec<String>,
}

impl Walk {
    fn of(vip: IpAddr, port: Port, translation: Translation<'_>) -> Self {
        let endpoints = translation.endpoints;
        let Some(time) = translation.affinity else {
            let condition = format!("-p {} ", port.protocol);
            return Self {
                known: Vec::new(),
                choice: choice(&condition, endpoints, dnat),
            };
        };
        let named = |endpoint| endpoint_chain(vip, port, endpoint);
        let known = endpoints
            .iter()
            .rev()
            .map(|endpoint| stay(&named(*endpoint), time, Family::of(vip)));
        Self {
            known: known.collect(),
            choice: choice("", endpoints, |endpoint| format!("-j {}", named(endpoint))),
        }
    }

    fn parts(&self) -> [&[String]; 2] {
        [&self.known, &self.choice]
    }

    fn rules(mut self) -> Vec<String> {
        self.known.append(&mut self.choice);
        self.known
    }
}

/// Each rule takes its share of the remaining flows: the last place 1/n, the one before 1/(n-1) of the rest, ..., the first the remainder.
fn choice(condition: &str, endpoints: &Places, target: impl Fn(SocketAddr) -> String) -> Vec<String> {
    let rule = |(place, endpoint): (usize, &SocketAddr)| match place {
        0 => format!("{condition}{}", target(*endpoint)),
        _ => format!(
            "{condition}-m statistic --mode random --probability {} {}",
            one_in(place + 1),
            target(*endpoint)
        ),
    };
    let mut rules: Vec<String> = endpoints.iter().enumerate().map(rule).collect();
    rules.reverse();
    rules
}

/// Returns `1/n` as the kernel stores it, in 31 bits, and as iptables prints it.
fn one_in(n: usize) -> String {
    let whole = 1_u128 << 31;
    let n = u128::try_from(n).unwrap_or(whole).max(2);
    let digits = 100_000_000_000_u128;
    let rounded = |value: u128, by: u128| (value + by / 2) / by;
    format!("0.{:011}", rounded(rounded(whole, n) * digits, whole))
}

/// Returns the rule for a client that an endpoint remembers.
fn stay(chain: &str, time: Duration, family: Family) -> String {
    let check = format!("--rcheck --seconds {} --reap", time.as_secs());
    format!("-m recent {} -j {chain}", recent(&check, chain, family))
}

/// The list of an endpoint's clients has the name of its chain. The kernel deletes it with the last rule that refers to it.
fn recent(action: &str, list: &str, family: Family) -> String {
    let mask = match family {
        Family::V4 => "255.255.255.255",
        Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    };
    format!("{action} --name {list} --mask {mask} --rsource")
}

fn service_chain(vip: IpAddr, port: Port) -> String {
    chain("SVC", &format!("{vip} {} {}", port.protocol, port.number))
}

fn endpoint_chain(vip: IpAddr, port: Port, endpoint: SocketAddr) -> String {
    chain(
        "SEP",
        &format!("{vip} {} {} {endpoint}", port.protocol, port.number),
    )
}

/// Returns the name of a chain. It has at most 28 characters, so it contains 80 bits of a hash.
fn chain(kind: &str, about: &str) -> String {
    let hash = Sha256::digest(about);
    let mut name = format!("{CHAIN_PREFIX}{kind}-");
    for byte in &hash[..10] {
        write!(name, "{byte:02x}").expect("writing to a String cannot fail");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rules::Protocol;

    #[test]
    fn chain_names_fit_the_kernel() {
        let port = Port {
            protocol: Protocol::Sctp,
            number: 65535,
        };
        assert_eq!(service_chain("fd00:96::a".parse().unwrap(), port).len(), 28);
    }

    #[test]
    fn probabilities_are_printed_as_iptables_does() {
        assert_eq!(
            [2, 3, 7].map(one_in),
            ["0.50000000000", "0.33333333349", "0.14285714272"]
        );
    }

    /// Returns the share of each place by the probabilities of the rules.
    fn shares(n: u16) -> Vec<f64> {
        let endpoint = |n: u16| SocketAddr::from(([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]], 8080));
        let endpoints: Places = (0..n).map(endpoint).collect();
        let rules = choice("", &endpoints, |endpoint| endpoint.to_string());
        let mut left = 1.0_f64;
        let share = |rule: &String| {
            let probability = rule
                .split_once("--probability ")
                .map(|(_, rest)| rest.split_once(' ').unwrap().0);
            let taken = left * probability.map_or(1.0, |probability| probability.parse::<f64>().unwrap());
            left -= taken;
            taken
        };
        rules.iter().map(share).collect()
    }

    proptest! {
        #[test]
        fn endpoints_have_equal_probabilities(n in 1u16..1200) {
            let shares = shares(n);
            prop_assert_eq!(shares.len(), usize::from(n));
            for (i, share) in shares.iter().enumerate() {
                prop_assert!((share * f64::from(n) - 1.0).abs() < 1e-4, "rule {i} of {n} gets {share}");
            }
        }
    }
}
