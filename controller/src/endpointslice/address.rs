//! The address of a pod on a network: one per family.
//!
//! Pure. Of several interfaces on one network the first with a usable address counts, in the order Multus reports them (the order
//! of the pod's networks annotation), and of its addresses the first: consumers read only the first address of an endpoint.

use crate::objects::{Attachment, Nodes, Pod};
use api::address::{self, Rejected};
use api::{Family, NetworkRef};
use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses of a pod on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodAddresses {
    /// True if it has an interface on the network.
    pub is_attached: bool,
    /// The address of each family that counts, IPv4 first.
    pub chosen: Vec<IpAddr>,
    /// Addresses that may not be endpoints.
    pub rejected: Vec<(IpAddr, Rejected)>,
}

impl PodAddresses {
    /// The address of a family.
    pub(super) fn of(&self, family: Family) -> Option<IpAddr> {
        self.chosen
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }
}

/// The addresses of a pod whose annotation can be read.
pub(super) fn addresses(
    attachments: &[Attachment],
    network: &NetworkRef,
    nodes: &Nodes,
    service_cidrs: &[IpNet],
) -> PodAddresses {
    let mut found = PodAddresses::default();
    for attachment in attachments
        .iter()
        .filter(|attachment| network.is_named(&attachment.network))
    {
        found.is_attached = true;
        for address in attachment.addresses.iter().copied() {
            match check(address, nodes, service_cidrs) {
                Err(reject) => found.rejected.push((address, reject)),
                Ok(()) if found.of(Family::of(address)).is_none() => found.chosen.push(address),
                Ok(()) => {}
            }
        }
    }
    found.chosen.sort_unstable();
    // Every interface has a link-local IPv6 address: it is reported only where it is the only one.
    let has_better = |address: &IpAddr, reject: &Rejected| {
        *reject == Rejected::LinkLocal
            && found
                .chosen
                .iter()
                .any(|chosen| Family::of(*chosen) == Family::of(*address))
    };
    found
        .rejected
        .retain(|(address, reject)| !has_better(address, reject));
    found
}

/// Checks that an address can be an endpoint.
pub(super) fn check(address: IpAddr, nodes: &Nodes, service_cidrs: &[IpNet]) -> Result<(), Rejected> {
    address::check(address)?;
    address::check_reserved(address, service_cidrs, |address| nodes.has_address(address))
}

/// Orders two pods that report one address, its owner first: a pod that is not terminating, then the older, then the smaller UID.
pub(super) fn address_owner<'p>(one: &'p Pod, other: &'p Pod) -> (&'p Pod, &'p Pod) {
    let rank = |pod: &Pod| (pod.is_terminating, pod.created, pod.uid.clone());
    if rank(one) <= rank(other) {
        (one, other)
    } else {
        (other, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::fixture::pod;
    use crate::objects::Node;
    use rstest::rstest;

    fn found(interfaces: &[(&str, &[&str])]) -> PodAddresses {
        let attachments: Vec<_> = interfaces
            .iter()
            .map(|(network, addresses)| Attachment {
                network: (*network).into(),
                addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            })
            .collect();
        let nodes: Nodes = [Node {
            name: "node-1".into(),
            addresses: vec!["192.168.0.11".parse().unwrap()],
            ..Node::default()
        }]
        .into_iter()
        .collect();
        let network = NetworkRef::parse("macvlan1", "shop").unwrap();
        addresses(
            &attachments,
            &network,
            &nodes,
            &["172.30.0.0/16".parse().unwrap()],
        )
    }

    #[rstest]
    #[case::other_network(&[("shop/other", &["10.1.0.2"] as &[_])], false, &[])]
    #[case::same_name_elsewhere(&[("bank/macvlan1", &["10.1.0.2"] as &[_])], false, &[])]
    #[case::layer_2(&[("shop/macvlan1", &[] as &[_])], true, &[])]
    #[case::both_families(&[("shop/macvlan1", &["fd00:1::2", "10.1.0.2"] as &[_])], true, &["10.1.0.2", "fd00:1::2"])]
    #[case::first_of_several_interfaces(&[("shop/macvlan1", &["10.1.0.9"] as &[_]), ("shop/macvlan1", &["10.1.0.2"])], true, &["10.1.0.9"])]
    #[case::first_usable_interface(&[("shop/macvlan1", &["169.254.0.1"] as &[_]), ("shop/macvlan1", &["10.1.0.2"])], true, &["10.1.0.2"])]
    #[case::families_from_two_interfaces(&[("shop/macvlan1", &["10.1.0.2"] as &[_]), ("shop/macvlan1", &["fd00:1::2"])], true, &["10.1.0.2", "fd00:1::2"])]
    #[case::several_on_one_interface(&[("shop/macvlan1", &["10.1.0.9", "10.1.0.2"] as &[_])], true, &["10.1.0.9"])]
    fn one_address_per_family(
        #[case] interfaces: &[(&str, &[&str])],
        #[case] attached: bool,
        #[case] want: &[&str],
    ) {
        let found = found(interfaces);
        let chosen: Vec<_> = found.chosen.iter().map(ToString::to_string).collect();
        assert_eq!(
            (
                found.is_attached,
                chosen.iter().map(String::as_str).collect::<Vec<_>>()
            ),
            (attached, want.to_vec())
        );
    }

    #[rstest]
    #[case::node("192.168.0.11", "a node")]
    #[case::service_range("172.30.4.4", "172.30.0.0/16")]
    #[case::loopback("127.0.0.1", "loopback")]
    #[case::link_local("169.254.1.1", "link-local")]
    fn an_address_that_no_pod_can_have_is_rejected(#[case] address: &str, #[case] why: &str) {
        let found = found(&[("shop/macvlan1", &[address])]);
        assert_eq!(found.chosen, [] as [IpAddr; 0]);
        assert!(
            found.rejected[0].1.to_string().contains(why),
            "{:?}",
            found.rejected
        );
    }

    #[test]
    fn a_link_local_address_beside_a_usable_one_is_no_fault() {
        assert_eq!(
            found(&[("shop/macvlan1", &["fe80::1", "fd00:1::2"])]).rejected,
            []
        );
    }

    #[test]
    fn the_pod_that_stays_and_came_first_keeps_an_address() {
        let old = pod(1).created("2026-01-01T00:00:00Z").build();
        let new = pod(2).created("2026-01-02T00:00:00Z").build();
        let going = pod(3).created("2025-01-01T00:00:00Z").terminating().build();
        assert_eq!(&*address_owner(&new, &old).0.name, "pod1");
        assert_eq!(&*address_owner(&going, &new).0.name, "pod2");
    }
}
