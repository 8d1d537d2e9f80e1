//! Applying a delta gives the wanted rules, and a delta contains no more than that.

use super::*;
use crate::Translated;
use api::{NetworkRef, ObjectName};
use proptest::prelude::*;
use rstest::rstest;
use std::time::Duration;

/// Few values, so that many are equal. A VIP may be on several networks.
fn any_rules() -> impl Strategy<Value = PodRules> {
    let port_rules = (
        // In any places.
        prop::sample::subsequence(vec![2u8, 3, 4, 5], 0..4).prop_shuffle(),
        prop::collection::btree_set(6u8..9, 0..2),
        prop::option::of(Just(60)),
        "[ab]",
    );
    let port_rules = port_rules.prop_map(|(endpoints, draining, affinity, name)| {
        Box::new(PortRules {
            name,
            endpoints: Places::of(endpoints.into_iter().map(endpoint).collect()).unwrap(),
            draining: draining.into_iter().map(endpoint).collect(),
            affinity: affinity.map(Duration::from_secs),
        })
    });
    let protocol = prop::sample::select(Protocol::ALL.to_vec());
    let port = (protocol, 1u16..3).prop_map(|(protocol, number)| Port { protocol, number });
    let vip = prop_oneof![
        (10u8..14).prop_map(|host| IpAddr::from([172, 30, 0, host])),
        (10u16..12).prop_map(|host| IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, host])),
    ];
    let ports = prop::collection::btree_map(port, port_rules, 0..4);
    let vip_rules = ("[st]", ports).prop_map(|(name, ports)| {
        let service = ObjectName {
            namespace: "web".to_owned(),
            name,
        };
        Arc::new(VipRules { service, ports })
    });
    let network = prop::collection::btree_map(vip, vip_rules, 0..5);
    let source = |address: &'static str| {
        let source = ("net[12]", Just(address.parse().unwrap()));
        prop::option::of(source.prop_map(|(interface, address)| Source { interface, address }))
    };
    let attached =
        (source("10.1.0.7"), source("fd00:1::7"), network).prop_map(|(ipv4, ipv6, vips)| AttachedNetwork {
            ipv4,
            ipv6,
            rules: Arc::new(vips.into_iter().collect()),
        });
    let name = "[xy]".prop_map(|name| NetworkRef::parse(&name, "web").unwrap());
    prop::collection::btree_map(name, attached, 0..3).prop_map(|networks| PodRules { networks })
}

fn endpoint(host: u8) -> SocketAddr {
    (IpAddr::from([10, 1, 0, host]), 8080).into()
}

/// Returns the state of the kernel after `delta`.
fn write(mut held: KernelState, delta: &Delta<'_>) -> KernelState {
    for vip in &delta.reject {
        assert!(held.rejected.insert(*vip), "{vip} is rejected already");
    }
    for (vip, change) in &delta.sources {
        assert_eq!(held.sources.get(vip).copied(), change.old);
        assert_ne!(change.old, change.new);
        held.sources.extend(change.new.map(|new| (*vip, new)));
    }
    held.rejected_udp.extend(&delta.reject_udp);
    held.rejected_udp.retain(|vip| !delta.unreject_udp.contains(vip));
    assert!(
        held.rejected_udp.is_subset(&held.rejected),
        "a flow ends at the loopback address and its VIP is not rejected"
    );
    for (at, change) in &delta.ports {
        let held_there = held.translated.get(at).map(Translated::as_translation);
        assert_eq!(held_there, change.old);
        assert!(
            held.rejected.contains(&at.0),
            "{at:?} is translated before its VIP is rejected"
        );
        assert!(
            change.new.is_none() || held.sources.contains_key(&at.0),
            "{at:?} is translated before it has a source address"
        );
        match change.new {
            None => _ = held.translated.remove(at),
            Some(new) => {
                let Translation { endpoints, affinity } = new;
                let new = Translated {
                    endpoints: endpoints.clone(),
                    affinity,
                };
                held.translated.insert(*at, new);
            }
        }
    }
    for vip in &delta.unreject {
        assert!(held.rejected.remove(vip), "{vip} is not rejected");
    }
    for (vip, _) in delta.sources.iter().filter(|(_, change)| change.new.is_none()) {
        assert!(held.sources.remove(vip).is_some(), "{vip} has no source address");
    }
    held
}

fn write_routes(held: &PodRules, delta: &Delta<'_>) -> BTreeMap<IpAddr, Source> {
    let owned = |(vip, source): (&IpAddr, &&Source)| (*vip, (*source).clone());
    let mut routes: BTreeMap<_, _> = held.routes().iter().map(owned).collect();
    routes.retain(|vip, _| !delta.unroute.contains(vip));
    routes.extend(delta.route.iter().map(owned));
    routes
}

proptest! {
    #[test]
    fn a_delta_applied_to_held_rules_gives_wanted_rules(held in any_rules(), wanted in any_rules()) {
        let delta = Delta::between(&held, &wanted);
        prop_assert_eq!(write(held.kernel_state(), &delta), wanted.kernel_state());
        prop_assert_eq!(write_routes(&held, &delta), write_routes(&wanted, &Delta::between(&wanted, &wanted)));
    }

    #[test]
    fn a_read_state_is_corrected_by_difference(held in any_rules(), wanted in any_rules()) {
        let read = held.kernel_state();
        let delta = Delta::from_kernel_state(&read, &wanted);
        prop_assert_eq!(&delta.ports, &Delta::between(&held, &wanted).ports);
        prop_assert_eq!(write(read.clone(), &delta), wanted.kernel_state());
    }

    #[test]
    fn endpoints_keep_their_places_and_the_wanted_rules_are_equal(held in any_rules(), wanted in any_rules()) {
        let (read, delta) = (held.kernel_state(), Delta::between(&held, &wanted));
        let placed = delta.placed().unwrap_or_else(|| wanted.clone());
        prop_assert_eq!(placed.kernel_state().regardless_of_places(), wanted.kernel_state().regardless_of_places());
        for delta in [Delta::between(&held, &placed), Delta::from_kernel_state(&read, &placed)] {
            prop_assert_eq!(write(read.clone(), &delta), placed.kernel_state());
            prop_assert!(delta.placed().is_none(), "once is enough");
            for change in delta.ports.values() {
                let (Some(old), Some(new)) = (change.old, change.new) else { continue };
                let came = new.endpoints.not_in(Some(old.endpoints)).count();
                let gone = old.endpoints.not_in(Some(new.endpoints)).count();
                prop_assert!(new.endpoints.changes_from(Some(old.endpoints)).count() <= 2 * (came + gone), "{change:?}");
            }
        }
    }

    #[test]
    fn from_nothing_everything_is_written(wanted in any_rules()) {
        prop_assert_eq!(write(KernelState::default(), &Delta::from_nothing(&wanted)), wanted.kernel_state());
    }

    #[test]
    fn equal_rules_have_an_empty_delta(rules in any_rules()) {
        // Deeply equal, and not the same allocation.
        let mut again = rules.clone();
        for attached in again.networks.values_mut() {
            attached.rules = Arc::new(attached.rules.vips().into_iter().map(|(vip, rules)| (*vip, Arc::new(VipRules::clone(rules)))).collect());
        }
        for delta in [Delta::between(&rules, &rules), Delta::between(&rules, &again)] {
            prop_assert!(delta.is_empty() && delta.flows.is_empty(), "{delta:?}");
        }
        let read = rules.kernel_state();
        let adopted = Delta::from_kernel_state(&read, &rules);
        prop_assert!(adopted.ports.is_empty() && adopted.reject.is_empty() && adopted.unreject.is_empty());
    }

    #[test]
    fn adding_then_removing_is_an_empty_delta(held in any_rules(), more in any_rules()) {
        let there = Delta::between(&held, &more);
        let back = Delta::between(&more, &held);
        prop_assert_eq!(write(write(held.kernel_state(), &there), &back), held.kernel_state());
    }

    #[test]
    fn only_stale_flows_are_ended(held in any_rules(), wanted in any_rules()) {
        let delta = Delta::between(&held, &wanted);
        for (vip, rules) in Family::ALL.into_iter().flat_map(|family| held.vips(family)).map(|(vip, (rules, _))| (vip, rules)) {
            for (port, rules) in rules.ports.iter().filter(|(port, _)| port.protocol != Protocol::Tcp) {
                let Some(before) = held.translation(vip, *port) else { continue };
                let may_have_flows = before.endpoints.iter().chain(&rules.draining);
                let now = wanted.vip(vip).and_then(|(new, source)| { let new = new.ports.get(port)?; new.translation(source)?; Some(new) });
                for endpoint in may_have_flows {
                    let may = now.is_some_and(|now| now.endpoints.contains(endpoint) || now.draining.contains(endpoint));
                    let looked_for = delta.flows.get(&(vip, *port));
                    prop_assert!(may || looked_for.is_some_and(|keepers| !keepers.contains(endpoint)), "a flow to {endpoint} goes on");
                    prop_assert!(!may || looked_for.is_none_or(|keepers| keepers.contains(endpoint)), "a flow to {endpoint} is cut");
                }
            }
        }
        prop_assert!(delta.flows.keys().all(|(_, port)| port.protocol != Protocol::Tcp));
    }
}

fn one(protocol: Protocol, endpoints: &[u8], draining: &[u8]) -> PodRules {
    let port = PortRules {
        endpoints: endpoints.iter().map(|host| endpoint(*host)).collect(),
        draining: draining.iter().map(|host| endpoint(*host)).collect(),
        ..PortRules::default()
    };
    let service = ObjectName {
        namespace: "web".to_owned(),
        name: "s".to_owned(),
    };
    let ports = BTreeMap::from([(Port { protocol, number: 53 }, Box::new(port))]);
    let vips = BTreeMap::from([(
        IpAddr::from([172, 30, 0, 10]),
        Arc::new(VipRules { service, ports }),
    )]);
    let attached = AttachedNetwork {
        ipv4: Some(Source {
            interface: "net1".to_owned(),
            address: IpAddr::from([10, 1, 0, 7]),
        }),
        ipv6: None,
        rules: Arc::new(vips.into_iter().collect()),
    };
    let network = NetworkRef::parse("x", "web").unwrap();
    PodRules {
        networks: BTreeMap::from([(network, attached)]),
    }
}

#[rstest]
#[case::endpoint_removed(one(Protocol::Udp, &[2, 3], &[]), one(Protocol::Udp, &[2], &[]), true)]
#[case::endpoint_added(one(Protocol::Udp, &[2], &[]), one(Protocol::Udp, &[2, 3], &[]), false)]
#[case::begins_to_drain(one(Protocol::Udp, &[2, 3], &[]), one(Protocol::Udp, &[2], &[3]), false)]
#[case::drained(one(Protocol::Udp, &[2], &[3]), one(Protocol::Udp, &[2], &[]), true)]
#[case::first_endpoint(one(Protocol::Udp, &[], &[]), one(Protocol::Udp, &[2], &[]), true)]
#[case::last_endpoint(one(Protocol::Sctp, &[2], &[]), one(Protocol::Sctp, &[], &[]), true)]
#[case::tcp_lives_on(one(Protocol::Tcp, &[2, 3], &[]), one(Protocol::Tcp, &[2], &[]), false)]
fn flows_end_when_their_endpoint_no_longer_serves_them(
    #[case] held: PodRules,
    #[case] wanted: PodRules,
    #[case] cut: bool,
) {
    assert_eq!(!Delta::between(&held, &wanted).flows.is_empty(), cut);
}

#[test]
fn damage_causes_a_rebuild() {
    let rules = one(Protocol::Udp, &[2], &[]);
    let mut read = rules.kernel_state();
    assert!(!Delta::from_kernel_state(&read, &rules).is_rebuild());
    read.damage.insert("an unknown rule".to_owned());
    let delta = Delta::from_kernel_state(&read, &rules);
    assert!(delta.is_rebuild() && !delta.is_empty());
}
