//! Which endpoints a Service should have, by family and port group.
//!
//! Pure.

use super::Input;
use super::address::{PodAddresses, addresses, keeps_address};
use super::endpoint::{EndpointKey, can_serve, endpoint};
use super::family::{Family, families};
use super::ports::{PortGroup, endpoint_ports};
use crate::accept::is_headless;
use crate::notice::{Notice, Reason, first_few};
use crate::objects::{Node, Pod};
use api::names::{NETWORK_STATUS_ANNOTATION, SERVICE_NETWORK_ANNOTATION};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Endpoints that share ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The ports, in the Service's order.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
}

pub(super) type Groups = BTreeMap<PortGroup, Group>;

/// A selected pod that can serve, with its Node and addresses.
struct Candidate<'a> {
    pod: &'a Pod,
    node: Option<&'a Node>,
    addresses: PodAddresses,
}

/// The endpoints of each family of the Service, and what is to be said about the pods.
pub(super) fn desired(input: &Input<'_>) -> (BTreeMap<Family, Groups>, Vec<Notice>) {
    let mut notices = Vec::new();
    let candidates = candidates(input, &mut notices);
    let owners = owners(&candidates, &mut notices);
    notices.extend(unattached(input, &candidates));
    let families = families(input.service);
    notices.extend(missing_families(input, &families, &candidates));
    let of_family = |family| (family, groups(input, family, &candidates, &owners));
    (families.iter().copied().map(of_family).collect(), notices)
}

fn candidates<'a>(input: &Input<'a>, notices: &mut Vec<Notice>) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for pod in input.pods.iter().filter(|pod| can_serve(pod)) {
        let attachments = match &pod.attachments {
            Ok(attachments) => attachments,
            Err(error) => {
                notices.push(Notice::new(
                    Reason::InvalidNetworkStatus,
                    format!(
                        "pod {} is left out: {error}; restart the pod, so that Multus writes it anew",
                        pod.key()
                    ),
                ));
                continue;
            }
        };
        let addresses = addresses(
            attachments,
            &input.binding.network,
            input.nodes,
            &input.settings.service_cidrs,
        );
        notices.extend(addresses.rejected.iter().map(|(address, why)| {
            Notice::new(
                Reason::AddressRefused,
                format!(
                    "address {address} of pod {} on network {} is left out: {why}; correct the IPAM of the network or the pod's annotation {NETWORK_STATUS_ANNOTATION}",
                    pod.key(),
                    input.binding.network,
                ),
            )
        }));
        let node = pod.node.as_deref().and_then(|name| input.nodes.get(name));
        found.push(Candidate { pod, node, addresses });
    }
    found
}

/// Which pod has each address. Two pods with one address would be one address twice in a slice; clients reach only one of them.
fn owners<'a>(candidates: &[Candidate<'a>], notices: &mut Vec<Notice>) -> BTreeMap<IpAddr, &'a Pod> {
    let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    for candidate in candidates {
        for address in candidate.addresses.chosen.iter().copied() {
            let Some(other) = owners.insert(address, candidate.pod) else {
                continue;
            };
            let (owner, loser) = keeps_address(other, candidate.pod);
            owners.insert(address, owner);
            // A pod that is stopping hands its static address to its successor: nobody's fault.
            if !loser.is_terminating {
                notices.push(Notice::new(
                    Reason::DuplicateAddress,
                    format!(
                        "address {address} is reported by pod {} and by pod {}; only the first is an endpoint; correct the IPAM of the network",
                        owner.key(),
                        loser.key(),
                    ),
                ));
            }
        }
    }
    owners
}

fn groups(
    input: &Input<'_>,
    family: Family,
    candidates: &[Candidate<'_>],
    owners: &BTreeMap<IpAddr, &Pod>,
) -> Groups {
    let publishes_unready = input
        .service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    let mut groups = Groups::new();
    for Candidate { pod, node, addresses } in candidates {
        let ports = endpoint_ports(input.service, pod);
        // A pod without an address still keeps its port group's slices from being deleted and created again.
        let group = groups.entry(PortGroup::of(&ports)).or_insert_with(|| Group {
            ports,
            ..Group::default()
        });
        // Its Node is gone and the pod will follow; it is taken up again when the Node appears.
        if node.is_none() && !publishes_unready {
            continue;
        }
        let own = |address: &IpAddr| owners.get(address).is_some_and(|owner| owner.uid == pod.uid);
        if let Some(address) = addresses.of(family).filter(own) {
            let endpoint = endpoint(input, pod, *node, address);
            group.endpoints.insert(EndpointKey::of(&endpoint), endpoint);
        }
    }
    groups
}

fn unattached(input: &Input<'_>, candidates: &[Candidate<'_>]) -> Option<Notice> {
    if candidates.is_empty() || candidates.iter().any(|candidate| candidate.addresses.is_attached) {
        return None;
    }
    let network = &input.binding.network;
    let names = first_few(candidates.iter().map(|candidate| &*candidate.pod.name));
    Some(Notice::new(
        Reason::NotAttached,
        format!(
            "no selected pod is attached to network {network}: {names}; add it to the pods' annotation k8s.v1.cni.cncf.io/networks, or correct annotation {SERVICE_NETWORK_ANNOTATION} or the selector"
        ),
    ))
}

fn missing_families(input: &Input<'_>, families: &[Family], candidates: &[Candidate<'_>]) -> Vec<Notice> {
    let is_listed = input
        .service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.ip_families.is_some());
    let attached: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.addresses.is_attached)
        .collect();
    if !is_listed || attached.is_empty() {
        return Vec::new();
    }
    let missing: Vec<_> = families
        .iter()
        .filter(|family| {
            attached
                .iter()
                .all(|candidate| candidate.addresses.of(**family).is_none())
        })
        .collect();
    // The API server gives a headless Service without selector both families, whatever its author wanted: one will do.
    let is_defaulted = input.binding.is_selectorless && is_headless(input.service);
    if is_defaulted && missing.len() < families.len() {
        return Vec::new();
    }
    missing
        .into_iter()
        .map(|family| {
            Notice::new(
                Reason::FamilyMissing,
                format!(
                    "spec.ipFamilies has {family}, but no selected pod has an {family} address on network {}; add an {family} range to the IPAM of the network, or change spec.ipFamilies",
                    input.binding.network,
                    family = family.as_str(),
                ),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{Fixture, PodBuilder, pod};
    use rstest::rstest;

    fn told(pods: impl IntoIterator<Item = PodBuilder>, families: &[&str]) -> (usize, Vec<Notice>) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.ip_families = Some(families.iter().map(|f| (*f).to_owned()).collect()));
        fixture.pods(pods);
        fixture.with_input(|input| {
            let (desired, notices) = desired(input);
            let groups = desired.values().flat_map(BTreeMap::values);
            (groups.map(|group| group.endpoints.len()).sum(), notices)
        })
    }

    #[rstest]
    #[case::good(vec![pod(1), pod(2)], &["IPv4"], 2, None)]
    #[case::one_of_two_attached(vec![pod(1), pod(2).on("shop/other", &["10.9.0.2"])], &["IPv4"], 1, None)]
    #[case::none_attached(vec![pod(7).on("shop/other", &["10.9.0.2"])], &["IPv4"], 0, Some((Reason::NotAttached, "pod7")))]
    #[case::no_pods(vec![], &["IPv4"], 0, None)]
    #[case::family_missing(vec![pod(1)], &["IPv4", "IPv6"], 1, Some((Reason::FamilyMissing, "IPv6")))]
    #[case::layer_2(vec![pod(1).on("shop/testnet1", &[])], &["IPv4"], 0, Some((Reason::FamilyMissing, "IPv4")))]
    #[case::link_local(vec![pod(1).on("shop/testnet1", &["169.254.1.1", "10.1.1.1"])], &["IPv4"], 1, None)]
    #[case::link_local_alone(vec![pod(1), pod(2).on("shop/testnet1", &["169.254.1.1"])], &["IPv4"], 1, Some((Reason::AddressRefused, "shop/pod2")))]
    #[case::duplicate(vec![pod(1), pod(2).on("shop/testnet1", &["10.1.1.1"])], &["IPv4"], 1, Some((Reason::DuplicateAddress, "shop/pod2")))]
    #[case::handed_over(vec![pod(1), pod(2).on("shop/testnet1", &["10.1.1.1"]).terminating()], &["IPv4"], 1, None)]
    #[case::malformed(vec![pod(1), pod(2).malformed()], &["IPv4"], 1, Some((Reason::InvalidNetworkStatus, "shop/pod2")))]
    #[case::finished_pods_say_nothing(vec![pod(1), pod(2).malformed().finished()], &["IPv4"], 1, None)]
    fn a_bad_pod_harms_only_itself_and_is_named(
        #[case] pods: Vec<PodBuilder>,
        #[case] families: &[&str],
        #[case] endpoints: usize,
        #[case] want: Option<(Reason, &str)>,
    ) {
        let (count, notices) = told(pods, families);
        assert_eq!(count, endpoints);
        assert_eq!(notices.len(), usize::from(want.is_some()), "{notices:?}");
        for (notice, (reason, word)) in notices.iter().zip(want) {
            assert_eq!(notice.reason, reason);
            assert!(notice.message.contains(word), "{}", notice.message);
        }
    }

    #[test]
    fn one_family_will_do_where_nobody_chose_two() {
        let mut fixture = Fixture::new();
        fixture.binding.is_selectorless = true;
        fixture.spec(|spec| {
            spec.cluster_ip = Some("None".into());
            spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        });
        fixture.pods([pod(1)]);
        assert_eq!(fixture.with_input(desired).1, []);
        fixture.pods([pod(1).on("shop/testnet1", &[])]);
        assert_eq!(fixture.with_input(desired).1.len(), 2, "no address at all");
    }

    #[rstest]
    #[case::node_unknown(pod(1).node("node-9"), false, 0)]
    #[case::node_unknown_but_published(pod(1).node("node-9"), true, 1)]
    #[case::no_sandbox(pod(1).without_sandbox(), false, 0)]
    #[case::finished(pod(1).finished(), true, 0)]
    #[case::terminating(pod(1).terminating(), false, 1)]
    fn which_pods_are_endpoints(#[case] one: PodBuilder, #[case] published: bool, #[case] want: usize) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.publish_not_ready_addresses = Some(published));
        fixture.pods([one, pod(2)]);
        let count = fixture.with_input(|input| {
            desired(input).0[&Family::V4]
                .values()
                .next()
                .unwrap()
                .endpoints
                .len()
        });
        assert_eq!(count, want + 1, "the other pod stays");
    }
}
