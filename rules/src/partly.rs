//! Rules of which some VIPs are as they must be, and all others as a namespace has them.
//!
//! Pure. With them a change that the kernel refuses as a whole can be made VIP by VIP.

use crate::{AttachedNetwork, Dump, Family, NetworkRules, ObjectName, PodRules, PortRules, Source, VipRules};
use api::NetworkRef;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

impl PodRules {
    /// The VIPs for which `is_to_change` holds as in these rules, the others as in `held`. Only for what backends write: routes are not in a
    /// dump, so the sources here are none that a route can have.
    #[must_use]
    pub fn partly(&self, held: &Dump, is_to_change: impl Fn(IpAddr) -> bool) -> Self {
        let mut vips = BTreeMap::new();
        for (vip, (rules, source)) in Family::ALL.into_iter().flat_map(|family| self.vips(family)) {
            if is_to_change(vip) {
                let mut rules = rules.clone();
                if source.is_none() {
                    let ports = rules.ports.values_mut();
                    ports.for_each(|port| port.endpoints.clear());
                }
                vips.insert(vip, rules);
            }
        }
        for vip in held.refused.iter().filter(|vip| !is_to_change(**vip)) {
            vips.insert(*vip, self.named(*vip));
        }
        for ((vip, port), translated) in &held.translated {
            if is_to_change(*vip) {
                continue;
            }
            let rules = vips.entry(*vip).or_insert_with(|| self.named(*vip));
            let name = self.vip(*vip).and_then(|(rules, _)| rules.ports.get(port));
            let port_rules = PortRules {
                name: name.map(|rules| rules.name.clone()).unwrap_or_default(),
                endpoints: translated.endpoints.clone(),
                affinity: translated.affinity,
                draining: BTreeSet::new(),
            };
            rules.ports.insert(*port, Box::new(port_rules));
        }
        Self::of_no_network(vips)
    }

    /// A VIP without ports. What is not wanted any more has lost the name of its Service.
    fn named(&self, vip: IpAddr) -> VipRules {
        let service = self.vip(vip).map(|(rules, _)| rules.service.clone());
        VipRules {
            service: service.unwrap_or_else(|| ObjectName {
                namespace: "no".to_owned(),
                name: "service".to_owned(),
            }),
            ports: BTreeMap::new(),
        }
    }

    fn of_no_network(vips: BTreeMap<IpAddr, VipRules>) -> Self {
        let Ok(name) = NetworkRef::parse("as/read", "") else {
            return Self::default();
        };
        let mut rules = NetworkRules::default();
        for (vip, vip_rules) in vips {
            rules.vips.insert_cow(vip, Arc::new(vip_rules));
        }
        let source = |address| {
            Some(Source {
                interface: String::new(),
                address,
            })
        };
        let attached = AttachedNetwork {
            ipv4: source(Ipv4Addr::UNSPECIFIED.into()),
            ipv6: source(Ipv6Addr::UNSPECIFIED.into()),
            rules: Arc::new(rules),
        };
        Self {
            networks: BTreeMap::from([(name, attached)]),
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
            (address(96, *vip), rules)
        });
        let mut rules = PodRules::of_no_network(vips.collect());
        if !has_source {
            for attached in rules.networks.values_mut() {
                attached.ipv4 = None;
            }
        }
        rules
    }

    fn vips() -> impl Strategy<Value = BTreeMap<u8, BTreeSet<u8>>> {
        prop::collection::btree_map(0u8..12, prop::collection::btree_set(0u8..5, 0..4), 0..10)
    }

    proptest! {
        #[test]
        fn part_by_part_leads_from_what_is_held_to_what_is_wanted(
            held in vips(), wanted in vips(), part in prop::collection::btree_set(0u8..12, 0..12), has_source: bool,
        ) {
            let (held, wanted) = (rules(&held, true).dump(), rules(&wanted, has_source));
            prop_assert_eq!(&wanted.partly(&held, |_| false).dump(), &held);
            prop_assert_eq!(wanted.partly(&held, |_| true).dump(), wanted.dump());
            let is_first = |vip: IpAddr| match vip {
                IpAddr::V4(vip) => part.contains(&vip.octets()[3]),
                IpAddr::V6(vip) => part.contains(&vip.octets()[15]),
            };
            let halfway = wanted.partly(&held, is_first).dump();
            for vip in halfway.translated.keys() {
                let of = if is_first(vip.0) { &wanted.dump() } else { &held };
                prop_assert_eq!(halfway.translated.get(vip), of.translated.get(vip));
            }
            prop_assert_eq!(wanted.partly(&halfway, |vip| !is_first(vip)).dump(), wanted.dump());
        }
    }
}
