//! A cleanup deletes exactly the flows that are stale by then, after any changes while it waits.

use super::*;
use api::{NetworkRef, ObjectName};
use proptest::prelude::*;
use rstest::rstest;
use rules::{AttachedNetwork, PortRules, Protocol, Source, VipRules};
use std::collections::BTreeMap;
use std::sync::Arc;

const VIP: [u8; 4] = [172, 30, 0, 10];

fn udp(number: u16) -> Port {
    Port {
        protocol: Protocol::Udp,
        number,
    }
}

fn endpoint(host: u8) -> SocketAddr {
    ([10, 1, 0, host], 8080).into()
}

/// By VIP and port: endpoints, and those that drain.
type Ports<'a> = &'a [(u8, u16, Vec<u8>, Vec<u8>)];

fn rules_of(ports: Ports<'_>) -> PodRules {
    let mut vips: BTreeMap<IpAddr, VipRules> = BTreeMap::new();
    for (vip, port, endpoints, draining) in ports {
        let of_port = PortRules {
            endpoints: endpoints.iter().copied().map(endpoint).collect(),
            draining: draining.iter().copied().map(endpoint).collect(),
            ..PortRules::default()
        };
        let service = ObjectName {
            namespace: "web".to_owned(),
            name: "dns".to_owned(),
        };
        let of_vip = vips.entry(IpAddr::from([172, 30, 0, *vip])).or_insert(VipRules {
            service,
            ports: BTreeMap::new(),
        });
        of_vip.ports.insert(udp(*port), Box::new(of_port));
    }
    let source = Source {
        interface: "net1".to_owned(),
        address: [10, 1, 0, 7].into(),
    };
    let attached = AttachedNetwork {
        ipv4: Some(source),
        ipv6: None,
        rules: Arc::new(vips.into_iter().map(|(vip, of)| (vip, Arc::new(of))).collect()),
    };
    let network = NetworkRef::parse("macvlan1", "web").unwrap();
    PodRules {
        networks: BTreeMap::from([(network, attached)]),
    }
}

/// One VIP and port with these endpoints; `None`: no VIP.
fn rules(hosts: Option<&[u8]>) -> PodRules {
    hosts.map_or_else(PodRules::default, |hosts| {
        rules_of(&[(10, 53, hosts.to_vec(), vec![])])
    })
}

/// Returns what is pending after these changes without a cleanup in between.
fn after<'a>(changes: impl IntoIterator<Item = &'a PodRules>) -> Pending {
    let (mut pending, mut held) = (Pending::default(), PodRules::default());
    for wanted in changes {
        let later = Pending::of(&Delta::between(&held, wanted), &BTreeSet::new(), false);
        pending.add(later, wanted);
        held = wanted.clone();
    }
    pending
}

/// Returns true when a flow to `port` of `vip`, answered by `by`, is deleted.
fn ends(pending: &Pending, rules: &PodRules, vip: IpAddr, port: Port, by: SocketAddr) -> bool {
    let (changed, new) = pending.under(rules);
    by.ip() == vip && new.contains(&vip)
        || changed
            .get(&(vip, port))
            .is_some_and(|allowed| !allowed.contains(&by))
}

#[rstest]
#[case::an_endpoint_went(&[Some(&[2, 3][..]), Some(&[3])], &[2, 10], &[3])]
#[case::and_came_back(&[Some(&[2, 3][..]), Some(&[3]), Some(&[2, 3])], &[10], &[2, 3])]
#[case::another_came_since(&[Some(&[2][..]), Some(&[3]), Some(&[3, 4])], &[2, 10], &[3, 4])]
#[case::all_went(&[Some(&[2][..]), Some(&[])], &[2, 10], &[])]
#[case::the_vip_is_new(&[None, Some(&[2][..])], &[10, 3], &[2])]
#[case::the_vip_went(&[Some(&[2][..]), None], &[2], &[10])]
#[case::it_came_and_went(&[None, Some(&[2][..]), None], &[2], &[10])]
#[case::it_went_and_came(&[Some(&[2][..]), None, Some(&[3])], &[2, 10], &[3])]
fn flows_are_evaluated_against_the_latest_rules(
    #[case] changes: &[Option<&[u8]>],
    #[case] ended: &[u8],
    #[case] kept: &[u8],
) {
    let vip = IpAddr::from(VIP);
    let changes: Vec<_> = changes.iter().map(|hosts| rules(*hosts)).collect();
    let (pending, last) = (after(&changes), changes.last().unwrap());
    for (hosts, is_ended) in [(ended, true), (kept, false)] {
        for host in hosts {
            // 10: the flow is not translated.
            let by = if *host == 10 {
                SocketAddr::new(vip, 53)
            } else {
                endpoint(*host)
            };
            assert_eq!(ends(&pending, last, vip, udp(53), by), is_ended, "{by}");
        }
    }
}

#[test]
fn only_vips_with_unknown_translation_wait() {
    let (one, other) = (IpAddr::from(VIP), IpAddr::from([172, 30, 0, 11]));
    let before = rules_of(&[(10, 53, vec![2], vec![]), (11, 53, vec![2], vec![])]);
    let wanted = rules_of(&[(10, 53, vec![3], vec![]), (11, 53, vec![3], vec![])]);
    let mut pending = after([&before, &wanted]);
    let stuck = BTreeSet::from([one]);
    // Nothing was written of it: what the namespace has is without it.
    let written = rules_of(&[(11, 53, vec![3], vec![])]);
    pending.add(
        Pending::of(&Delta::between(&wanted, &wanted), &stuck, false),
        &written,
    );
    assert!(!ends(&pending, &written, one, udp(53), endpoint(2)));
    assert!(ends(&pending, &written, other, udp(53), endpoint(2)));
    assert!(pending.is_due());
    pending.done();
    assert!(!pending.is_due() && !pending.is_empty());
    pending.add(Pending::default(), &wanted);
    assert!(ends(&pending, &wanted, one, udp(53), endpoint(2)));
    pending.done();
    assert!(pending.is_empty());
}

#[test]
fn a_young_pod_has_no_flows_to_former_owners_of_a_vip() {
    let wanted = rules(Some(&[2]));
    let young = Pending::of(&Delta::from_nothing(&wanted), &BTreeSet::new(), true);
    let old = Pending::of(&Delta::from_nothing(&wanted), &BTreeSet::new(), false);
    assert_eq!((young.under(&wanted).1.len(), old.under(&wanted).1.len()), (0, 1));
}

#[test]
fn rejected_flows_of_a_removed_vip_are_pending() {
    let pending = after([&rules(Some(&[])), &rules(None)]);
    assert!(pending.is_due());
    assert!(
        !after([&rules(Some(&[])), &rules(Some(&[]))])
            .under(&rules(None))
            .0
            .contains_key(&(VIP.into(), udp(53)))
    );
}

#[test]
fn churn_of_vips_takes_bounded_memory() {
    let vip = IpAddr::from([172, 30, 0, 11]);
    let mut pending = Pending::default();
    let later = Pending {
        ports: (0..u16::MAX).map(|port| (vip, udp(port))).collect(),
        new: BTreeSet::from([vip]),
        has_rejected: false,
        unknown: BTreeSet::new(),
    };
    pending.add(later, &PodRules::default());
    assert_eq!((pending.ports.len(), pending.new.len()), (GONE, 0));
}

fn any_rules() -> impl Strategy<Value = PodRules> {
    let hosts = || prop::collection::vec(2u8..5, 0..3);
    let port = (10u8..12, 53u16..55, hosts(), hosts());
    prop::collection::vec(port, 0..4).prop_map(|ports| rules_of(&ports))
}

proptest! {
    /// A flow that rules translated, in whichever order they changed, stays if the last ones allow it, and ends if they do not.
    #[test]
    fn merged_changes_delete_exactly_the_stale_flows(changes in prop::collection::vec(any_rules(), 1..6)) {
        let (pending, last) = (after(&changes), changes.last().unwrap());
        for begun_under in &changes {
            for (vip, (of_vip, source)) in begun_under.vips(api::Family::V4) {
                for (port, of_port) in &of_vip.ports {
                    for by in of_port.translation(source).into_iter().flat_map(|of| of.endpoints) {
                        let is_right = keepers(last, vip, *port).contains(by);
                        prop_assert_eq!(ends(&pending, last, vip, *port, *by), !is_right, "{} {:?} {}", vip, port, by);
                    }
                }
            }
        }
    }
}
