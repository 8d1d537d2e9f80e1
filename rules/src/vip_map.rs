//! `VipMap`: the VIPs of one network with their rules, sorted, in versions that share equal parts.
//!
//! Pure. Each pod has the version that was written last. While Services change faster than they can be written, every pod has another
//! version; full copies of a thousand VIPs each would dominate the proxy's memory.

use crate::VipRules;
use immutable_chunkmap::map::{Map, NodeRef};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// VIPs by ClusterIP. A clone is free; a change copies the chunk of 32 that it is in, and the path to it.
pub type VipMap = Map<IpAddr, Arc<VipRules>, 32>;

type Node<'a> = NodeRef<'a, IpAddr, Arc<VipRules>, 32>;

type Pair<'a> = (&'a IpAddr, &'a Arc<VipRules>);

/// Returns the VIPs that are in one version only, or differ. Parts that both versions share are skipped: the cost follows the number of
/// changes between the versions, not the number of VIPs.
pub(crate) fn differing_vips(old: &VipMap, new: &VipMap) -> BTreeSet<IpAddr> {
    let (mut old, mut new) = (Rest::of(old), Rest::of(new));
    let mut differing = BTreeSet::new();
    loop {
        old.skip_shared(&mut new);
        match (old.first(), new.first()) {
            (None, None) => return differing,
            (Some((vip, before)), Some((other, after))) if vip == other => {
                if !Arc::ptr_eq(before, after) && before != after {
                    differing.insert(*vip);
                }
                old.pop();
                new.pop();
            }
            (Some((vip, _)), other) if other.is_none_or(|(other, _)| vip < other) => {
                differing.insert(*vip);
                old.pop();
            }
            (_, other) => {
                differing.extend(other.map(|(vip, _)| *vip));
                new.pop();
            }
        }
    }
}

/// The rest of a walk through a version in the order of VIPs.
struct Rest<'a> {
    /// What follows, the next one last.
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    /// A node with all below it.
    Subtree(Node<'a>),
    /// The pairs of a node, the next one last.
    Pairs(Vec<Pair<'a>>),
}

impl<'a> Rest<'a> {
    fn of(vips: &'a VipMap) -> Self {
        Self {
            parts: vips.root().map(Part::Subtree).into_iter().collect(),
        }
    }

    /// Skips subtrees that both share, and opens the others, until both begin with a pair or are at their end.
    fn skip_shared(&mut self, other: &mut Self) {
        loop {
            match (self.subtree(), other.subtree()) {
                (None, None) => return,
                (Some(mine), Some(theirs)) if mine.identity() == theirs.identity() => {
                    self.parts.pop();
                    other.parts.pop();
                }
                (Some(mine), Some(theirs)) => {
                    // A rotation puts a shared subtree at another depth: the one that contains the other is opened alone.
                    let (in_mine, in_theirs) = (begins_with(mine, theirs), begins_with(theirs, mine));
                    if !in_theirs {
                        self.open();
                    }
                    if !in_mine {
                        other.open();
                    }
                }
                (Some(_), None) => self.open(),
                (None, Some(_)) => other.open(),
            }
        }
    }

    fn subtree(&self) -> Option<&Node<'a>> {
        match self.parts.last() {
            Some(Part::Subtree(node)) => Some(node),
            _ => None,
        }
    }

    fn open(&mut self) {
        if let Some(Part::Subtree(node)) = self.parts.pop() {
            self.parts.extend(node.right().map(Part::Subtree));
            let mut pairs: Vec<_> = node.pairs().collect();
            pairs.reverse();
            if !pairs.is_empty() {
                self.parts.push(Part::Pairs(pairs));
            }
            self.parts.extend(node.left().map(Part::Subtree));
        }
    }

    fn first(&self) -> Option<Pair<'a>> {
        match self.parts.last() {
            Some(Part::Pairs(pairs)) => pairs.last().copied(),
            _ => None,
        }
    }

    fn pop(&mut self) {
        if let Some(Part::Pairs(pairs)) = self.parts.last_mut() {
            pairs.pop();
            if pairs.is_empty() {
                self.parts.pop();
            }
        }
    }
}

/// Returns true when `inner` is the first part of `outer`.
fn begins_with(outer: &Node<'_>, inner: &Node<'_>) -> bool {
    let mut left = outer.left();
    while let Some(node) = left {
        if node.identity() == inner.identity() {
            return true;
        }
        left = node.left();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkRules;
    use api::{Family, ObjectName};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Even numbers are IPv4, odd ones IPv6.
    fn vip(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        if number.is_multiple_of(2) {
            IpAddr::from([172, 30, high, low])
        } else {
            IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, number])
        }
    }

    fn rules() -> Arc<VipRules> {
        Arc::new(VipRules {
            service: ObjectName::FIRST,
            ports: BTreeMap::new(),
        })
    }

    /// Asserts equal entries in equal order for every kind of access.
    fn assert_same(vips: &VipMap, model: &BTreeMap<IpAddr, Arc<VipRules>>) {
        vips.invariant();
        assert_eq!(vips.len(), model.len());
        let network: NetworkRules = vips
            .into_iter()
            .map(|(vip, rules)| (*vip, Arc::clone(rules)))
            .collect();
        let both = Family::ALL.into_iter().flat_map(|family| network.of(family));
        let found: Vec<_> = both.map(|(vip, rules)| (vip, Arc::as_ptr(rules))).collect();
        let wanted: Vec<_> = model
            .iter()
            .map(|(vip, rules)| (*vip, Arc::as_ptr(rules)))
            .collect();
        assert_eq!(found, wanted);
        for family in Family::ALL {
            assert_eq!(
                network.has(family),
                model.keys().any(|vip| Family::of(*vip) == family)
            );
        }
        for (vip, rules) in model {
            assert!(vips.get(vip).is_some_and(|found| Arc::ptr_eq(found, rules)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Several hundred VIPs need many chunks; pods rely on unchanged old versions.
        #[test]
        fn every_version_equals_a_plain_map(
            changes in prop::collection::vec((prop::bool::weighted(0.7), 0u16..900), 1..1500),
        ) {
            let (mut vips, mut model) = (VipMap::new(), BTreeMap::new());
            let mut versions = Vec::new();
            for (step, (comes, number)) in changes.into_iter().enumerate() {
                if comes {
                    let rules = rules();
                    vips.insert_cow(vip(number), Arc::clone(&rules));
                    model.insert(vip(number), rules);
                } else {
                    prop_assert_eq!(vips.remove_cow(&vip(number)).is_some(), model.remove(&vip(number)).is_some());
                }
                if step % 100 == 0 {
                    versions.push((vips.clone(), model.clone()));
                }
            }
            versions.push((vips, model));
            for (vips, model) in &versions {
                assert_same(vips, model);
            }
        }
    }

    /// The VIPs that a comparison of all pairs finds.
    fn differing_by_pairs(old: &VipMap, new: &VipMap) -> BTreeSet<IpAddr> {
        let all = old.into_iter().chain(new).map(|(vip, _)| *vip);
        all.filter(|vip| old.get(vip) != new.get(vip)).collect()
    }

    /// Rules that differ from those of another number.
    fn numbered(number: u16) -> Arc<VipRules> {
        let mut rules = VipRules::clone(&rules());
        rules.service.name = number.to_string();
        Arc::new(rules)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn difference_of_versions_is_that_of_their_pairs(
            first in prop::collection::vec(0u16..600, 0..700),
            changes in prop::collection::vec((0u8..3, 0u16..600, 0u16..4), 0..80),
        ) {
            let mut old = VipMap::new();
            for number in first {
                old.insert_cow(vip(number), numbered(0));
            }
            let mut new = old.clone();
            for (kind, number, name) in changes {
                if kind == 0 {
                    new.remove_cow(&vip(number));
                } else {
                    new.insert_cow(vip(number), numbered(name));
                }
            }
            prop_assert_eq!(differing_vips(&old, &new), differing_by_pairs(&old, &new));
            prop_assert_eq!(differing_vips(&new, &old), differing_by_pairs(&new, &old));
        }
    }

    /// Counts the pairs that a comparison visits.
    fn visited(old: &VipMap, new: &VipMap) -> usize {
        let (mut old, mut new) = (Rest::of(old), Rest::of(new));
        let mut visited = 0;
        loop {
            old.skip_shared(&mut new);
            let is_end = old.first().is_none() && new.first().is_none();
            if is_end {
                return visited;
            }
            visited += 1;
            let (Some((before, _)), Some((after, _))) = (old.first(), new.first()) else {
                old.pop();
                new.pop();
                continue;
            };
            let order = before.cmp(after);
            if order.is_le() {
                old.pop();
            }
            if order.is_ge() {
                new.pop();
            }
        }
    }

    #[test]
    fn a_comparison_visits_what_changed() {
        let mut vips = VipMap::new();
        for number in 0..10_000 {
            vips.insert_cow(vip(number * 2), rules());
        }
        assert_eq!(visited(&vips, &vips.clone()), 0);
        let mut most = 0;
        for number in (0..10_000).step_by(7) {
            let mut changed = vips.clone();
            changed.insert_cow(vip(number), rules());
            most = most.max(visited(&vips, &changed));
        }
        // The nodes on the path to the change, of at most 32 pairs each.
        assert!(most <= 12 * 32, "{most} of 10000 pairs");
    }

    fn nodes(node: Option<Node<'_>>, found: &mut BTreeSet<usize>) {
        if let Some(node) = node {
            found.insert(node.identity());
            nodes(node.left(), found);
            nodes(node.right(), found);
        }
    }

    #[test]
    fn a_version_shares_all_but_the_path_to_the_change() {
        let mut vips = VipMap::new();
        for number in 0..1000 {
            vips.insert_cow(vip(number), rules());
        }
        let before = vips.clone();
        vips.insert_cow(vip(500), rules());
        let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
        nodes(before.root(), &mut old);
        nodes(vips.root(), &mut new);
        let copied = new.difference(&old).count();
        assert!(old.len() > 30 && copied <= 8, "{copied} of {} nodes", old.len());
    }
}
