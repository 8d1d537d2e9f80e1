//! Dispatch chains that lead a packet to the few rules of its destination.
//!
//! Pure. By the low byte of the address, four bits at a time: a new flow meets at most 16 + 16 rules and then 1/256 of all VIPs.
//! ClusterIPs are allocated from their whole range, so the low byte spreads them evenly. Only chains that lead somewhere exist.

use super::{Chains, host};
use api::Family;
use api::names::CHAIN_PREFIX;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Returns the bucket of an address.
pub(super) fn bucket(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// Returns a rule for each of `vips`, with the target `what`, by bucket.
pub(super) fn per_vip(vips: &BTreeSet<IpAddr>, what: &str) -> BTreeMap<u8, Vec<String>> {
    let mut buckets: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for vip in vips {
        let rule = format!("-d {} {what}", host(*vip));
        buckets.entry(bucket(*vip)).or_default().push(rule);
    }
    buckets
}

/// Returns the VIP of such a rule.
pub(super) fn vip_of(rule: &str, what: &str) -> Option<IpAddr> {
    let destination = rule.strip_prefix("-d ")?.strip_suffix(what)?.strip_suffix(' ')?;
    let (address, _) = destination.split_once('/')?;
    address.parse().ok()
}

/// Returns all chains: `buckets` below a root chain of that name.
pub(super) fn whole(root: &str, family: Family, buckets: BTreeMap<u8, Vec<String>>) -> Chains {
    let root = format!("{CHAIN_PREFIX}{root}");
    let mut chains = Chains::from([(root.clone(), Vec::new())]);
    for (bucket, rules) in buckets {
        let (branch, leaf) = names(&root, bucket);
        if !chains.contains_key(&branch) {
            let rule = jump(family, bucket & 0x0f, 0x0f, &branch);
            chains.entry(root.clone()).or_default().push(rule);
        }
        let rule = jump(family, bucket & 0xf0, 0xf0, &leaf);
        chains.entry(branch).or_default().push(rule);
        chains.insert(leaf, rules);
    }
    chains
}

/// Returns the chains on the path to `touched` buckets: those to create and those to delete. Of `buckets`, the rules of touched ones and the
/// existence of the others are used.
pub(super) fn along(
    root: &str,
    family: Family,
    buckets: BTreeMap<u8, Vec<String>>,
    touched: &BTreeSet<u8>,
) -> (Chains, BTreeSet<String>) {
    if touched.is_empty() {
        return (Chains::new(), BTreeSet::new());
    }
    let mut whole = whole(root, family, buckets);
    let root = format!("{CHAIN_PREFIX}{root}");
    let on_the_way = touched
        .iter()
        .flat_map(|bucket| <[String; 2]>::from(names(&root, *bucket)));
    let (mut set, mut delete) = (Chains::new(), BTreeSet::new());
    for chain in on_the_way.chain([root.clone()]) {
        match whole.remove(&chain) {
            Some(rules) => _ = set.insert(chain, rules),
            None if set.contains_key(&chain) => {}
            None => _ = delete.insert(chain),
        }
    }
    (set, delete)
}

fn names(root: &str, bucket: u8) -> (String, String) {
    (
        format!("{root}-{:X}", bucket & 0x0f),
        format!("{root}-{bucket:02X}"),
    )
}

fn jump(family: Family, bits: u8, mask: u8, chain: &str) -> String {
    match family {
        Family::V4 => format!("-d 0.0.0.{bits}/0.0.0.{mask} -j {chain}"),
        Family::V6 if bits == 0 => format!("-d ::/::{mask:x} -j {chain}"),
        Family::V6 => format!("-d ::{bits:x}/::{mask:x} -j {chain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(buckets: &BTreeSet<u8>) -> BTreeMap<u8, Vec<String>> {
        buckets
            .iter()
            .map(|bucket| (*bucket, vec![format!("rule {bucket}")]))
            .collect()
    }

    proptest! {
        #[test]
        fn incremental_changes_equal_a_full_rendering(before in prop::collection::btree_set(0u8..40, 0..9), after in prop::collection::btree_set(0u8..40, 0..9)) {
            let touched = before.symmetric_difference(&after).copied().collect();
            let mut chains = whole("X", Family::V4, rules(&before));
            let (set, delete) = along("X", Family::V4, rules(&after), &touched);
            chains.retain(|chain, _| !delete.contains(chain));
            chains.extend(set);
            prop_assert_eq!(chains, whole("X", Family::V4, rules(&after)));
        }

        #[test]
        fn a_packet_traverses_few_rules(buckets in prop::collection::btree_set(any::<u8>(), 0..=256)) {
            prop_assert!(whole("X", Family::V6, rules(&buckets)).values().all(|rules| rules.len() <= 16));
        }
    }
}
