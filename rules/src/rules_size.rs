//! `RulesSize`: the number of items that a backend writes for the rules of a network, kept up to date by each change.
//!
//! Pure. Every attempt on every pod asks for it: a count over all VIPs would cost more than the change itself.

use crate::VipRules;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Number of items, and of classes of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesSize {
    items: usize,
    /// Number of ports by their number of endpoints.
    endpoint_counts: BTreeMap<usize, usize>,
    /// Number of ports by their affinity.
    affinities: BTreeMap<Duration, usize>,
}

impl RulesSize {
    /// Number of VIPs, their ports, and the endpoints of these.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Number of distinct endpoint counts and affinities of ports on all of several networks.
    pub fn classes_of<'a>(sizes: impl Iterator<Item = &'a Self>) -> usize {
        let (mut counts, mut affinities) = (BTreeSet::<&usize>::new(), BTreeSet::<&Duration>::new());
        for size in sizes {
            counts.extend(size.endpoint_counts.keys());
            affinities.extend(size.affinities.keys());
        }
        counts.len() + affinities.len()
    }

    pub(crate) fn add(&mut self, vip: &VipRules) {
        self.items += items(vip);
        for port in vip.ports.values() {
            *self.endpoint_counts.entry(port.endpoints.len()).or_default() += 1;
            if let Some(affinity) = port.affinity {
                *self.affinities.entry(affinity).or_default() += 1;
            }
        }
    }

    pub(crate) fn subtract(&mut self, vip: &VipRules) {
        self.items -= items(vip);
        for port in vip.ports.values() {
            decrement(&mut self.endpoint_counts, &port.endpoints.len());
            if let Some(affinity) = port.affinity {
                decrement(&mut self.affinities, &affinity);
            }
        }
    }
}

fn items(vip: &VipRules) -> usize {
    1 + vip
        .ports
        .values()
        .map(|port| 1 + port.endpoints.len())
        .sum::<usize>()
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetworkRules, Port, PortRules, Protocol};
    use api::ObjectName;
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;

    fn rules(endpoints: u8, affinity: Option<u8>) -> Arc<VipRules> {
        let port = Port {
            protocol: Protocol::Tcp,
            number: 80,
        };
        let rules = PortRules {
            endpoints: (1..=endpoints)
                .map(|host| SocketAddr::from(([10, 1, 0, host], 80)))
                .collect(),
            affinity: affinity.map(|seconds| Duration::from_secs(seconds.into())),
            ..PortRules::default()
        };
        Arc::new(VipRules {
            service: ObjectName::FIRST,
            ports: BTreeMap::from([(port, Box::new(rules))]),
        })
    }

    #[test]
    fn classes_of_several_networks_are_counted_once() {
        let network = |endpoints, affinity| -> NetworkRules {
            [(IpAddr::from([172, 30, 0, 1]), rules(endpoints, affinity))]
                .into_iter()
                .collect()
        };
        let networks = [network(2, Some(9)), network(2, Some(9)), network(3, None)];
        assert_eq!(RulesSize::classes_of(networks.iter().map(NetworkRules::size)), 3);
    }

    proptest! {
        #[test]
        fn size_after_changes_equals_size_of_the_rules(
            changes in prop::collection::vec((any::<bool>(), 0u8..8, 0u8..4, prop::option::of(1u8..3)), 0..60),
        ) {
            let mut network = NetworkRules::default();
            for (comes, vip, endpoints, affinity) in changes {
                let vip = IpAddr::from([172, 30, 0, vip]);
                if comes {
                    network.insert(vip, rules(endpoints, affinity));
                } else {
                    network.remove(&vip);
                }
                let recounted: NetworkRules = network.vips().into_iter().map(|(vip, rules)| (*vip, Arc::clone(rules))).collect();
                prop_assert_eq!(network.size(), recounted.size());
                let items: usize = network.vips().into_iter().map(|(_, rules)| items(rules)).sum();
                prop_assert_eq!(network.size().items(), items);
            }
        }
    }
}
