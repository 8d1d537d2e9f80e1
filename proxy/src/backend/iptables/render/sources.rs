//! Source translation in the nat table after routing: the pod's own flows to a VIP get the pod's address on the VIP's network.
//!
//! Pure. The kernel enters these chains once per translated flow. Nearly every flow has the right source from its route and ends at the
//! first rule; those of a socket that is bound to another address, or that was connected before the route existed, search for their VIP.
//! Chains by the low byte of the VIP keep a change small; they do not dispatch, because `iptables -S` (1.8.9) omits the mask of
//! `--ctorigdst`, and a rule that is listed differently cannot be verified.

use super::buckets::bucket;
use super::{Chains, Change, host};
use api::Family;
use api::names::CHAIN_PREFIX;
use rules::Delta;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const ROOT: &str = "SOURCES";

/// Sources by VIP.
type Sources = BTreeMap<IpAddr, IpAddr>;

/// Returns all chains for VIPs of one family.
pub(super) fn whole(sources: &Sources) -> Chains {
    let mut leaves = Chains::new();
    for (vip, source) in sources {
        let rule = format!("-m conntrack --ctorigdst {vip} -j SNAT --to-source {source}");
        leaves.entry(leaf(*vip)).or_default().push(rule);
    }
    let right: BTreeSet<&IpAddr> = sources.values().collect();
    let right = right.into_iter().map(|source| {
        format!(
            "-s {} -m addrtype --src-type LOCAL --limit-iface-out -j RETURN",
            host(*source)
        )
    });
    let forwarded = (!sources.is_empty()).then(|| "-m addrtype ! --src-type LOCAL -j RETURN".to_owned());
    let jumps = leaves.keys().map(|leaf| format!("-j {leaf}"));
    let rules = right.chain(forwarded).chain(jumps).collect();
    leaves.insert(root(), rules);
    leaves
}

/// Returns the change of `delta` in `family`.
pub(super) fn change(delta: &Delta<'_>, family: Family) -> Change {
    let touched: BTreeSet<String> = delta.sources(family).map(|(vip, _)| leaf(vip)).collect();
    let mut change = Change::default();
    if touched.is_empty() {
        return change;
    }
    let mut whole = whole(&delta.wanted().source_addresses(family));
    for chain in touched.into_iter().chain([root()]) {
        match whole.remove(&chain) {
            Some(rules) => _ = change.set.insert(chain, rules),
            None => _ = change.delete.insert(chain),
        }
    }
    change
}

/// Returns the change if an existing source address changes: it is written before the route changes.
pub fn moved_sources(delta: &Delta<'_>, family: Family) -> Change {
    let is_moved = delta
        .sources(family)
        .any(|(_, change)| change.old.is_some() && change.new.is_some());
    if is_moved {
        change(delta, family)
    } else {
        Change::default()
    }
}

/// Parses the chains of `whole`.
pub(super) fn read(chains: &Chains) -> Sources {
    let leaves = chains
        .iter()
        .filter(|(chain, _)| chain.strip_prefix(&root()).is_some_and(|rest| !rest.is_empty()));
    let rules = leaves.flat_map(|(_, rules)| rules);
    let source = |rule: &String| {
        let rest = rule.strip_prefix("-m conntrack --ctorigdst ")?;
        let (vip, source) = rest.split_once(" -j SNAT --to-source ")?;
        Some((vip.parse().ok()?, source.parse().ok()?))
    };
    rules.filter_map(source).collect()
}

pub(super) fn root() -> String {
    format!("{CHAIN_PREFIX}{ROOT}")
}

fn leaf(vip: IpAddr) -> String {
    format!("{}-{:02X}", root(), bucket(vip))
}
