//! The endpoints that a Service should have, by family and port group.
//!
//! Pure.

use super::Input;
use super::address::{PodAddresses, address_owner, addresses};
use super::endpoint::{EndpointKey, can_serve, endpoint};
use super::family::families;
use super::ports::{Group, Groups, PortGroup, endpoint_ports, missing, port_title};
use crate::objects::{Node, Pod};
use crate::service_status::problem::{Problem, Reason, first_few};
use crate::validate::is_headless;
use api::names::NETWORK_STATUS_ANNOTATION;
use api::{Family, ObjectName};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A selected pod that can serve, with its Node and addresses.
struct Candidate<'a> {
    pod: &'a Pod,
    node: Option<&'a Node>,
    addresses: PodAddresses,
}

impl Candidate<'_> {
    /// Returns false if its Node does not exist: the pod will be deleted too. It counts again when the Node appears; until then it does not
    /// own an address that another pod reports.
    fn is_endpoint(&self, input: &Input<'_>) -> bool {
        self.node.is_some() || publishes_unready(input)
    }
}

/// Returns the endpoints of each family of the Service, and the problems of its pods.
pub(super) fn desired(input: &Input<'_>) -> (BTreeMap<Family, Groups>, Vec<Problem>) {
    let mut problems = Vec::new();
    let candidates = candidates(input, &mut problems);
    let owners = owners(input, &candidates, &mut problems);
    problems.extend(unattached(input, &candidates));
    let families = families(input.service);
    problems.extend(missing_families(input, &families, &candidates));
    let of_family = |family| (family, groups(input, family, &candidates, &owners));
    let desired = families.iter().copied().map(of_family).collect();
    problems.extend(missing(input.service, &desired).map(|port| target_port_not_found(input, port)));
    (desired, problems)
}

/// Kubernetes does not report this, and clients of the port are rejected.
fn target_port_not_found(input: &Input<'_>, port: &ServicePort) -> Problem {
    let named = match &port.target_port {
        Some(IntOrString::String(name)) => name.as_str(),
        _ => "",
    };
    Problem::new(
        Reason::TargetPortNotFound,
        format!(
            "{} of Service {} has targetPort {named:?}, and no container of the selected pods has a port of that name and protocol, so its clients are rejected; name the port in the pods' containers, or write its number in targetPort",
            port_title(port),
            ObjectName::of(input.service),
        ),
    )
}

fn candidates<'a>(input: &Input<'a>, problems: &mut Vec<Problem>) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    let (mut unreadable, mut bad) = (Vec::new(), Vec::new());
    for pod in input.pods.iter().filter(|pod| can_serve(pod)) {
        let attachments = match &pod.attachments {
            Ok(attachments) => attachments,
            Err(error) => {
                unreadable.push((pod.key(), error.to_string()));
                continue;
            }
        };
        let network = &input.binding.network;
        let faults = pod.faults.iter().filter(|fault| fault.may_affect(network));
        bad.extend(faults.map(|fault| (pod.key(), fault.to_string())));
        let addresses = addresses(
            attachments,
            &input.binding.network,
            input.nodes,
            &input.settings.service_cidrs,
        );
        let node = pod.node.as_deref().and_then(|name| input.nodes.get(name));
        found.push(Candidate { pod, node, addresses });
    }
    let text = format!(
        "pods with an invalid annotation {NETWORK_STATUS_ANNOTATION} are ignored; restart them, so that Multus rewrites it"
    );
    problems.extend(invalid_status(text, &unreadable));
    let text = format!(
        "invalid entries and addresses in the pods' annotation {NETWORK_STATUS_ANNOTATION} are ignored, valid ones are used; correct the CNI plugin or its IPAM and restart the pods"
    );
    problems.extend(invalid_status(text, &bad));
    problems.extend(rejected(input, &found));
    found
}

fn invalid_status(text: String, seen: &[(ObjectName, String)]) -> Option<Problem> {
    let seen_on = seen.iter().map(|(pod, error)| format!("pod {pod} ({error})"));
    (!seen.is_empty()).then(|| Problem::new(Reason::InvalidNetworkStatus, text).seen_on(seen_on))
}

/// One problem for all addresses that cannot be endpoints, independent of their number and their pods.
fn rejected(input: &Input<'_>, candidates: &[Candidate<'_>]) -> Option<Problem> {
    let all = || {
        let of = |candidate: &Candidate<'_>| {
            let (pod, rejected) = (candidate.pod.key(), candidate.addresses.rejected.clone());
            rejected
                .into_iter()
                .map(move |(address, why)| (pod.clone(), address, why))
        };
        candidates.iter().flat_map(of)
    };
    let reasons: BTreeSet<String> = all().map(|(_, _, why)| why.to_string()).collect();
    if reasons.is_empty() {
        return None;
    }
    let text = format!(
        "invalid pod addresses on network {} are ignored ({}); correct the IPAM of the network or the pods' annotation {NETWORK_STATUS_ANNOTATION}",
        input.binding.network,
        first_few(reasons),
    );
    let seen = all().map(|(pod, address, why)| format!("{address} of pod {pod} ({why})"));
    Some(Problem::new(Reason::InvalidEndpointAddress, text).seen_on(seen))
}

/// The pod of each address. Two pods with one address would be one address twice in a slice; clients reach only one of them.
fn owners<'a>(
    input: &Input<'_>,
    candidates: &[Candidate<'a>],
    problems: &mut Vec<Problem>,
) -> BTreeMap<IpAddr, &'a Pod> {
    let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    let mut shared = Vec::new();
    for candidate in candidates.iter().filter(|candidate| candidate.is_endpoint(input)) {
        for address in candidate.addresses.chosen.iter().copied() {
            let Some(other) = owners.insert(address, candidate.pod) else {
                continue;
            };
            let (owner, loser) = address_owner(other, candidate.pod);
            owners.insert(address, owner);
            // A terminating pod passes its static address to its successor: that is no problem.
            if !loser.is_terminating {
                shared.push((address, owner.key(), loser.key()));
            }
        }
    }
    if !shared.is_empty() {
        let text = format!(
            "several pods report one address on network {}, and only one of them is an endpoint; correct the IPAM of the network",
            input.binding.network
        );
        let seen = shared
            .iter()
            .map(|(address, owner, loser)| format!("{address} of pod {owner}, also reported by pod {loser}"));
        problems.push(Problem::new(Reason::DuplicateAddress, text).seen_on(seen));
    }
    owners
}

fn publishes_unready(input: &Input<'_>) -> bool {
    let spec = input.service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false)
}

fn groups(
    input: &Input<'_>,
    family: Family,
    candidates: &[Candidate<'_>],
    owners: &BTreeMap<IpAddr, &Pod>,
) -> Groups {
    let mut groups = Groups::new();
    for candidate in candidates {
        let Candidate { pod, node, addresses } = candidate;
        let ports = endpoint_ports(input.service, pod);
        // A pod without an address still keeps its port group's slices from being deleted and created again.
        let group = groups.entry(PortGroup::of(&ports)).or_insert_with(|| Group {
            ports,
            ..Group::default()
        });
        if !candidate.is_endpoint(input) {
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

/// Remedy: makes a pod an endpoint of the network.
const ATTACH: &str = "add it to the pods' annotation k8s.v1.cni.cncf.io/networks, or correct the Service's annotation k8s.v1.cni.cncf.io/service-network or its selector";

fn unattached(input: &Input<'_>, candidates: &[Candidate<'_>]) -> Option<Problem> {
    if candidates.is_empty() || candidates.iter().any(|candidate| candidate.addresses.is_attached) {
        return None;
    }
    let network = &input.binding.network;
    let on_the_host = candidates
        .iter()
        .filter(|candidate| candidate.pod.is_on_host_network);
    let host_network = "Multus never attaches a pod of the host's network (spec.hostNetwork: true)";
    let remedy = match on_the_host.count() {
        0 => ATTACH.to_owned(),
        n if n == candidates.len() => {
            format!("{host_network}; run the pods without hostNetwork, or correct the selector")
        }
        _ => format!("{ATTACH}; {host_network}, and some of them are"),
    };
    let text = format!("no selected pod is attached to network {network}; {remedy}");
    let seen = candidates
        .iter()
        .map(|candidate| format!("pod {}", candidate.pod.name));
    Some(Problem::new(Reason::NoPodsAttached, text).seen_on(seen))
}

fn missing_families(input: &Input<'_>, families: &[Family], candidates: &[Candidate<'_>]) -> Vec<Problem> {
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
    // The API server gives a headless Service without selector both families if its author names none: one suffices.
    let is_defaulted = input.binding.is_selectorless && is_headless(input.service);
    if is_defaulted && missing.len() < families.len() {
        return Vec::new();
    }
    missing
        .into_iter()
        .map(|family| {
            Problem::new(
                Reason::FamilyMissing,
                format!(
                    "spec.ipFamilies has {family}, but no selected pod has an {family} address on network {}; add an {family} range to the IPAM of the network, or change spec.ipFamilies; addresses that are set inside a pod, and not by IPAM, are never endpoints",
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
    use crate::endpointslice::fixture::{Fixture, PodBuilder, pod};
    use rstest::rstest;

    fn planned(pods: impl IntoIterator<Item = PodBuilder>, families: &[&str]) -> (usize, Vec<Problem>) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.ip_families = Some(families.iter().map(|f| (*f).to_owned()).collect()));
        fixture.pods(pods);
        fixture.with_input(|input| {
            let (desired, problems) = desired(input);
            let groups = desired.values().flat_map(BTreeMap::values);
            (groups.map(|group| group.endpoints.len()).sum(), problems)
        })
    }

    #[rstest]
    #[case::good(vec![pod(1), pod(2)], &["IPv4"], 2, None)]
    #[case::one_of_two_attached(vec![pod(1), pod(2).on("shop/other", &["10.9.0.2"])], &["IPv4"], 1, None)]
    #[case::none_attached(vec![pod(7).on("shop/other", &["10.9.0.2"])], &["IPv4"], 0, Some((Reason::NoPodsAttached, "pod7")))]
    #[case::on_the_host_network(vec![pod(7).on_host_network()], &["IPv4"], 0, Some((Reason::NoPodsAttached, "hostNetwork")))]
    #[case::some_on_the_host_network(vec![pod(7).on_host_network(), pod(8).on("shop/other", &["10.9.0.2"])], &["IPv4"], 0, Some((Reason::NoPodsAttached, "some of them are")))]
    #[case::no_pods(vec![], &["IPv4"], 0, None)]
    #[case::family_missing(vec![pod(1)], &["IPv4", "IPv6"], 1, Some((Reason::FamilyMissing, "IPv6")))]
    #[case::layer_2(vec![pod(1).on("shop/testnet1", &[])], &["IPv4"], 0, Some((Reason::FamilyMissing, "IPv4")))]
    #[case::link_local(vec![pod(1).on("shop/testnet1", &["169.254.1.1", "10.1.1.1"])], &["IPv4"], 1, None)]
    #[case::link_local_alone(vec![pod(1), pod(2).on("shop/testnet1", &["169.254.1.1"])], &["IPv4"], 1, Some((Reason::InvalidEndpointAddress, "shop/pod2")))]
    #[case::duplicate(vec![pod(1), pod(2).on("shop/testnet1", &["10.1.1.1"])], &["IPv4"], 1, Some((Reason::DuplicateAddress, "shop/pod2")))]
    #[case::handed_over(vec![pod(1), pod(2).on("shop/testnet1", &["10.1.1.1"]).terminating()], &["IPv4"], 1, None)]
    #[case::malformed(vec![pod(1), pod(2).malformed()], &["IPv4"], 1, Some((Reason::InvalidNetworkStatus, "shop/pod2")))]
    #[case::unreadable_address(vec![pod(1), pod(2).faulty("shop/testnet1")], &["IPv4"], 2, Some((Reason::InvalidNetworkStatus, "pod shop/pod2 (annotation k8s.v1.cni.cncf.io/network-status: \"<nil>\" of network \"shop/testnet1\"")))]
    #[case::unreadable_entry(vec![pod(1), pod(2).faulty("")], &["IPv4"], 2, Some((Reason::InvalidNetworkStatus, "shop/pod2")))]
    #[case::unreadable_elsewhere(vec![pod(1), pod(2).faulty("shop/other")], &["IPv4"], 2, None)]
    #[case::finished_pods_say_nothing(vec![pod(1), pod(2).malformed().finished()], &["IPv4"], 1, None)]
    fn a_bad_pod_affects_only_itself_and_is_named(
        #[case] pods: Vec<PodBuilder>,
        #[case] families: &[&str],
        #[case] endpoints: usize,
        #[case] want: Option<(Reason, &str)>,
    ) {
        let (count, problems) = planned(pods, families);
        assert_eq!(count, endpoints);
        assert_eq!(problems.len(), usize::from(want.is_some()), "{problems:?}");
        for (problem, (reason, word)) in problems.iter().zip(want) {
            assert_eq!(problem.reason, reason);
            assert!(problem.text().contains(word), "{}", problem.text());
        }
    }

    /// Any client that may write pods controls the number of bad addresses; they are one problem, independent of number and pods.
    #[rstest]
    #[case::rejected(Reason::InvalidEndpointAddress, 64, |n: usize| pod(n).on("shop/testnet1", &["169.254.0.1"; 64]))]
    #[case::unreadable(Reason::InvalidNetworkStatus, 200, |n: usize| pod(n).malformed())]
    #[case::duplicate(Reason::DuplicateAddress, 200, |n: usize| pod(n).on("shop/testnet1", &["10.1.1.1"]))]
    #[case::unattached(Reason::NoPodsAttached, 200, |n: usize| pod(n).on("shop/other", &["10.1.1.1"]))]
    fn many_faults_of_one_kind_are_one_problem_and_a_rollout_changes_nothing_in_it(
        #[case] reason: Reason,
        #[case] pods: usize,
        #[case] bad: impl Fn(usize) -> PodBuilder + Copy,
    ) {
        let of = |range: std::ops::Range<usize>| {
            let (_, mut problems) = planned(range.map(bad), &["IPv4"]);
            problems.retain(|problem| problem.reason == reason);
            problems
        };
        let (before, after) = (of(0..pods), of(pods..3 * pods));
        assert_eq!((before.len(), after.len()), (1, 1), "{before:?}");
        assert_eq!(before[0].message, after[0].message);
        assert_ne!(before[0].seen_on, after[0].seen_on, "the pods are named");
        assert!(before[0].text().len() <= crate::service_status::problem::MAX_MESSAGE);
    }

    /// The Node of the older pod is deleted, and its pod not yet: the pod that replaces it has the same static address.
    #[rstest]
    #[case::handed_over(false, "pod2")]
    #[case::published_all_the_same(true, "pod1")]
    fn a_pod_without_a_node_does_not_own_its_address(#[case] published: bool, #[case] want: &str) {
        let mut fixture = Fixture::new();
        fixture.spec(|spec| spec.publish_not_ready_addresses = Some(published));
        let old = pod(1).created("2025-01-01T00:00:00Z").node("node-gone");
        fixture.pods([old, pod(2).on("shop/testnet1", &["10.1.1.1"])]);
        let (desired, problems) = fixture.with_input(desired);
        let endpoints: Vec<_> = desired[&Family::V4]
            .values()
            .flat_map(|group| group.endpoints.values())
            .collect();
        let names: Vec<_> = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_deref())
            .collect();
        assert_eq!(names, [want]);
        assert_eq!(problems.len(), usize::from(published), "{problems:?}");
    }

    #[test]
    fn one_family_suffices_where_the_author_names_none() {
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
    fn pods_that_are_endpoints(#[case] one: PodBuilder, #[case] published: bool, #[case] want: usize) {
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
