//! Partial updates: rules with the wanted state of some VIPs and the present state of all others.
//!
//! Pure. They split a change that the kernel rejects as a whole into changes of single VIPs.

use crate::{AttachedNetwork, KernelState, NetworkRules, PodRules, PortRules, Source, VipRules};
use api::{Family, NetworkRef, ObjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

impl PodRules {
    /// Returns the VIPs for which `is_to_change` holds from these rules, the others from `held`. Only for backends: a `KernelState` has no
    /// interfaces, so the result has no routes.
    #[must_use]
    pub fn partial_update(&self, held: &KernelState, is_to_change: impl Fn(IpAddr) -> bool) -> Self {
        let mut vips = BTreeMap::new();
        for (vip, (rules, source)) in Family::ALL.into_iter().flat_map(|family| self.vips(family)) {
            if is_to_change(vip) {
                vips.insert(vip, (rules.clone(), source.map(|source| source.address)));
            }
        }
        for vip in held.rejected.iter().filter(|vip| !is_to_change(**vip)) {
            vips.insert(*vip, (self.named(*vip), held.sources.get(vip).copied()));
        }
        for ((vip, port), translated) in &held.translated {
            if is_to_change(*vip) {
                continue;
            }
            let wanted = self.vip(*vip);
            let (rules, source) = vips.entry(*vip).or_insert_with(|| (self.named(*vip), None));
            // What an earlier layout translates without one is written with the right one.
            *source = (*source)
                .or_else(|| held.sources.get(vip).copied())
                .or_else(|| wanted.and_then(|(_, source)| Some(source?.address)));
            let name = wanted.and_then(|(rules, _)| rules.ports.get(port));
            let port_rules = PortRules {
                name: name.map(|rules| rules.name.clone()).unwrap_or_default(),
                endpoints: translated.endpoints.clone(),
                affinity: translated.affinity,
                draining: BTreeSet::new(),
            };
            rules.ports.insert(*port, Box::new(port_rules));
        }
        Self::by_source(vips)
    }

    /// Returns a VIP without ports. The name of a Service that is no longer wanted is not known.
    fn named(&self, vip: IpAddr) -> VipRules {
        let service = self.vip(vip).map(|(rules, _)| rules.service.clone());
        VipRules {
            service: service.unwrap_or_else(|| ObjectName::new("no", "service")),
            ports: BTreeMap::new(),
        }
    }

    /// A network for each source address, for a network has one of each family.
    fn by_source(vips: BTreeMap<IpAddr, (VipRules, Option<IpAddr>)>) -> Self {
        let mut by_source = BTreeMap::<Option<IpAddr>, NetworkRules>::new();
        for (vip, (rules, source)) in vips {
            let of_source = by_source.entry(source).or_default();
            of_source.insert(vip, Arc::new(rules));
        }
        let networks = by_source
            .into_iter()
            .enumerate()
            .filter_map(|(number, (source, rules))| {
                let network = NetworkRef::parse(&format!("as/read-{number}"), "").ok()?;
                let source = source.map(|address| Source {
                    interface: String::new(),
                    address,
                });
                let (ipv4, ipv6) = match source {
                    Some(source) if source.address.is_ipv4() => (Some(source), None),
                    source => (None, source),
                };
                let rules = Arc::new(rules);
                Some((network, AttachedNetwork { ipv4, ipv6, rules }))
            });
        Self {
            networks: networks.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Port, Protocol};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    /// For each VIP by number, its endpoints by number; even numbers are IPv4.
    fn rules(vips: &BTreeMap<u8, BTreeSet<u8>>, has_source: bool) -> PodRules {
        let address = |third: u8, number: u8| {
            if number.is_multiple_of(2) {
                IpAddr::from([10, third, 0, number])
            } else {
                IpAddr::from([0xfd00, third.into(), 0, 0, 0, 0, 0, number.into()])
            }
        };
        let vips = vips.iter().map(|(vip, endpoints)| {
            let port = PortRules {
                name: "http".to_owned(),
                endpoints: endpoints
                    .iter()
                    .map(|endpoint| SocketAddr::new(address(1, *endpoint), 8080))
                    .collect(),
                ..PortRules::default()
            };
            let number = Port {
                protocol: Protocol::Tcp,
                number: 80,
            };
            let rules = VipRules {
                service: ObjectName {
                    namespace: "web".to_owned(),
                    name: format!("s{vip}"),
                },
                ports: BTreeMap::from([(number, Box::new(port))]),
            };
            let vip_address = address(96, *vip);
            // Two sources of each family.
            let source = (has_source || vip_address.is_ipv6()).then(|| address(2, vip % 4));
            (vip_address, (rules, source))
        });
        PodRules::by_source(vips.collect())
    }

    fn vips() -> impl Strategy<Value = BTreeMap<u8, BTreeSet<u8>>> {
        prop::collection::btree_map(0u8..12, prop::collection::btree_set(0u8..5, 0..4), 0..10)
    }

    proptest! {
        #[test]
        fn partial_updates_lead_from_held_to_wanted_rules(
            held in vips(), wanted in vips(), part in prop::collection::btree_set(0u8..12, 0..12), has_source: bool,
        ) {
            let (held, wanted) = (rules(&held, true).kernel_state(), rules(&wanted, has_source));
            prop_assert_eq!(&wanted.partial_update(&held, |_| false).kernel_state(), &held);
            prop_assert_eq!(wanted.partial_update(&held, |_| true).kernel_state(), wanted.kernel_state());
            let is_first = |vip: IpAddr| match vip {
                IpAddr::V4(vip) => part.contains(&vip.octets()[3]),
                IpAddr::V6(vip) => part.contains(&vip.octets()[15]),
            };
            let halfway = wanted.partial_update(&held, is_first).kernel_state();
            for vip in halfway.translated.keys() {
                let of = if is_first(vip.0) { &wanted.kernel_state() } else { &held };
                prop_assert_eq!(halfway.translated.get(vip), of.translated.get(vip));
            }
            prop_assert_eq!(wanted.partial_update(&halfway, |vip| !is_first(vip)).kernel_state(), wanted.kernel_state());
        }
    }
}
