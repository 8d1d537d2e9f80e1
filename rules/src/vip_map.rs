//! `VipMap`: the VIPs of one network with their rules, sorted, in versions that share equal parts.
//!
//! Pure. Each pod has the version that was written last. While Services change faster than they can be written, every pod has another
//! version; full copies of a thousand VIPs each would dominate the proxy's memory.

use crate::VipRules;
use immutable_chunkmap::map::Map;
use std::net::IpAddr;
use std::sync::Arc;

/// VIPs by ClusterIP. A clone is free; a change copies the chunk of 32 that it is in, and the path to it.
pub type VipMap = Map<IpAddr, Arc<VipRules>, 32>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkRules;
    use api::{Family, ObjectName};
    use immutable_chunkmap::map::NodeRef;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Node<'a> = NodeRef<'a, IpAddr, Arc<VipRules>, 32>;

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
        let network = NetworkRules { vips: vips.clone() };
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
