//! The archived controller's reconciler tests, active and commented-out ones, restated on the pure planner (its names are kept).
//!
//! Fixture: Service `shop/web`, network `shop/testnet1`, selector foo=bar, port 80; pod n is ready on node-1 at `10.1.1.n`.

use super::SlicePlan;
use super::fixture::{Fixture, PodBuilder, pod};
use crate::objects::Node;
use api::names::{
    HEADLESS_LABEL, MANAGED_BY, MANAGED_BY_LABEL, NETWORK_LABEL, NETWORK_NAME_ANNOTATION, PROXY_NAME,
    PROXY_NAME_LABEL, SERVICE_NAME_LABEL,
};
use api::{Family, NetworkRef};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use proptest::prelude::*;
use rstest::rstest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn writes(plan: &SlicePlan) -> (usize, usize, usize) {
    (plan.create.len(), plan.update.len(), plan.delete.len())
}

fn pods(range: impl IntoIterator<Item = usize>) -> Vec<PodBuilder> {
    range.into_iter().map(pod).collect()
}

/// Slices of given sizes that hold the first pods, as an earlier run left them.
fn with_slices(sizes: &[usize]) -> Fixture {
    let mut fixture = Fixture::new();
    let mut next = 1;
    let max = fixture.settings.max_endpoints_per_slice;
    for size in sizes {
        let mut one = Fixture::new();
        one.settings.max_endpoints_per_slice = max.max(*size);
        one.pods(pods(next..next + size));
        let (plan, _) = one.plan();
        fixture.add_slice(plan.create[0].clone());
        next += size;
    }
    fixture
}

fn addresses(slice: &EndpointSlice) -> Vec<&str> {
    slice
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses)
        .map(String::as_str)
        .collect()
}

fn all_endpoints(fixture: &Fixture) -> Vec<Endpoint> {
    fixture
        .slices
        .iter()
        .flat_map(|slice| slice.endpoints.clone())
        .collect()
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn set_label(fixture: &mut Fixture, key: &str, value: &str) {
    let labels = fixture.service.metadata.labels.get_or_insert_default();
    labels.insert(key.to_owned(), value.to_owned());
}

#[test]
fn reconcile_empty() {
    let mut fixture = Fixture::new();
    let plan = fixture.sync();
    assert_eq!(writes(&plan), (1, 0, 0), "a placeholder");
    assert_eq!(
        (plan.create[0].ports.as_deref(), plan.create[0].endpoints.len()),
        (Some(&[][..]), 0)
    );
    assert_eq!((plan.counts.slices, plan.counts.endpoints), (1, 0));
    assert!(
        fixture.sync().is_empty(),
        "a placeholder that is right is not written again"
    );
}

#[test]
fn reconcile_1_pod() {
    let mut fixture = Fixture::new();
    fixture.pods(pods([1]));
    let plan = fixture.sync();
    assert_eq!(writes(&plan), (1, 0, 0));
    assert_eq!(plan.counts.added, 1);
    let slice = &fixture.slices[0];
    assert_eq!(
        (slice.address_type.as_str(), addresses(slice)),
        ("IPv4", vec!["10.1.1.1"])
    );
    let endpoint = &slice.endpoints[0];
    assert_eq!(
        (endpoint.zone.as_deref(), endpoint.node_name.as_deref()),
        (Some("us-central1-a"), Some("node-1"))
    );
    assert_eq!(
        endpoint
            .target_ref
            .as_ref()
            .and_then(|target| target.name.as_deref()),
        Some("pod1")
    );
    assert_eq!(label(slice, PROXY_NAME_LABEL), Some(PROXY_NAME));
    assert_eq!(label(slice, HEADLESS_LABEL), None);
}

#[test]
fn reconcile_1_pod_terminating() {
    let mut fixture = Fixture::new();
    fixture.pods([pod(1).terminating()]);
    fixture.sync();
    let conditions = all_endpoints(&fixture)[0].conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
}

#[test]
fn reconcile_1_pod_headless() {
    let mut fixture = Fixture::new();
    fixture
        .spec(|spec| spec.cluster_ip = Some("None".into()))
        .pods(pods([1]));
    fixture.sync();
    assert_eq!(label(&fixture.slices[0], HEADLESS_LABEL), Some(""));
}

#[test]
fn reconcile_1_pod_labels_and_bad_labels() {
    let mut fixture = Fixture::new();
    set_label(&mut fixture, "foo", "bar");
    for reserved in [SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL] {
        set_label(&mut fixture, reserved, "hijacked");
    }
    fixture.pods(pods([1])).sync();
    let slice = &fixture.slices[0];
    assert_eq!(label(slice, "foo"), Some("bar"));
    assert_eq!(
        (label(slice, SERVICE_NAME_LABEL), label(slice, MANAGED_BY_LABEL)),
        (Some("web"), Some(MANAGED_BY))
    );
    assert_eq!(label(slice, HEADLESS_LABEL), None);
}

#[rstest]
#[case::ipv6(&["IPv6"], "fd00:96::10", &[("IPv6", "fd00:1::1")])]
#[case::ipv6_clusterip(&[], "fd00:96::10", &[("IPv6", "fd00:1::1")])]
#[case::no_family(&[], "172.30.0.10", &[("IPv4", "10.1.1.1")])]
#[case::dualstack(&["IPv4", "IPv6"], "172.30.0.10", &[("IPv4", "10.1.1.1"), ("IPv6", "fd00:1::1")])]
fn reconcile_1_pod_families(
    #[case] families: &[&str],
    #[case] cluster_ip: &str,
    #[case] want: &[(&str, &str)],
) {
    let mut fixture = Fixture::new();
    fixture.spec(|spec| {
        spec.ip_families = (!families.is_empty()).then(|| families.iter().map(|f| (*f).to_owned()).collect());
        spec.cluster_ip = Some(cluster_ip.to_owned());
    });
    fixture.pods([pod(1).on("shop/testnet1", &["10.1.1.1", "fd00:1::1"])]);
    fixture.sync();
    let got: Vec<_> = fixture
        .slices
        .iter()
        .map(|slice| (slice.address_type.as_str(), addresses(slice)[0]))
        .collect();
    assert_eq!(got, want);
    assert!(fixture.sync().is_empty());
}

#[test]
fn reconcile_1_endpoint_slice() {
    let mut fixture = with_slices(&[1]);
    let plan = fixture.sync();
    assert_eq!(writes(&plan), (0, 1, 0), "the last slice becomes the placeholder");
    assert_eq!(
        (
            fixture.slices[0].endpoints.len(),
            fixture.slices[0].ports.as_deref()
        ),
        (0, Some(&[][..]))
    );
}

#[test]
fn reconcile_1_endpoint_slice_publish_not_ready_addresses() {
    let mut fixture = Fixture::new();
    fixture.spec(|spec| spec.publish_not_ready_addresses = Some(true));
    fixture.pods((1..=50).map(|n| pod(n).ready(n % 3 != 0)));
    assert_eq!(writes(&fixture.sync()), (1, 0, 0));
    let ready = all_endpoints(&fixture)
        .iter()
        .filter(|e| e.conditions.as_ref().unwrap().ready == Some(true))
        .count();
    assert_eq!(ready, 50);
}

#[test]
fn reconcile_many_pods() {
    let mut fixture = Fixture::new();
    let plan = fixture.pods(pods(1..=250)).sync();
    assert_eq!(
        (writes(&plan), fixture.sizes(), plan.counts.added),
        ((3, 0, 0), vec![100, 100, 50], 250)
    );
}

#[test]
fn reconcile_endpoint_slices_some_preexisting() {
    let mut fixture = with_slices(&[62, 61]);
    let plan = fixture.pods(pods(1..=250)).sync();
    assert_eq!((writes(&plan), fixture.sizes()), ((1, 1, 0), vec![100, 89, 61]));
}

#[test]
fn reconcile_endpoint_slices_some_preexisting_worse_allocation() {
    let mut fixture = with_slices(&[74, 74]);
    let plan = fixture.pods(pods(1..=300)).sync();
    assert_eq!(
        (writes(&plan), fixture.sizes()),
        ((2, 0, 0), vec![100, 74, 74, 52])
    );
}

#[test]
fn reconcile_endpoint_slices_updating() {
    let mut fixture = Fixture::new();
    fixture.pods(pods(1..=250)).sync();
    fixture
        .spec(|spec| spec.ports.as_mut().unwrap()[0].target_port = Some(serde_json::from_str("81").unwrap()));
    assert_eq!(
        (writes(&fixture.sync()), fixture.sizes()),
        ((0, 3, 0), vec![100, 100, 50])
    );
}

#[test]
fn reconcile_endpoint_slices_services_labels_updating() {
    let mut fixture = Fixture::new();
    fixture.pods(pods(1..=250)).sync();
    set_label(&mut fixture, "foo", "bar");
    assert_eq!(writes(&fixture.sync()), (0, 3, 0));
    assert!(
        fixture
            .slices
            .iter()
            .all(|slice| label(slice, "foo") == Some("bar"))
    );
    assert!(fixture.sync().is_empty());
}

#[test]
fn reconcile_endpoint_slices_services_reserved_labels() {
    let mut fixture = Fixture::new();
    fixture.pods(pods(1..=250)).sync();
    set_label(&mut fixture, SERVICE_NAME_LABEL, "evil");
    set_label(&mut fixture, MANAGED_BY_LABEL, "evil");
    assert!(fixture.sync().is_empty());
}

#[test]
fn reconcile_endpoint_slices_recycling() {
    let mut fixture = with_slices(&[30; 10]);
    fixture.pods(pods(1..=300));
    assert!(
        fixture.sync().is_empty(),
        "ten slices of thirty are left as they are"
    );
    let before = fixture.slices.clone();
    fixture.spec(|spec| spec.ports.as_mut().unwrap()[0].name = Some("changed".into()));
    let (plan, _) = fixture.plan();
    assert_eq!(writes(&plan), (0, 3, 7));
    assert_eq!(fixture.slices, before, "inputs are not changed");
    fixture.sync();
    assert_eq!(fixture.sizes(), [100, 100, 100]);
}

#[test]
fn reconcile_endpoint_slices_update_packing() {
    let mut fixture = with_slices(&[80, 20]);
    let old = (1..=100).map(|n| pod(n).ready(n % 10 != 0));
    let plan = fixture.pods(old.chain(pods(101..=115))).sync();
    assert_eq!(
        (writes(&plan), fixture.sizes(), plan.counts.added),
        ((0, 2, 0), vec![95, 20], 15)
    );
}

#[test]
fn reconcile_endpoint_slices_replace_deprecated() {
    let mut fixture = with_slices(&[80, 50]);
    for slice in &mut fixture.slices {
        let mut old = (**slice).clone();
        old.address_type = "IP".to_owned();
        *slice = old.into();
    }
    let plan = fixture.pods(pods(1..=130)).sync();
    assert_eq!((writes(&plan), fixture.sizes()), ((2, 0, 2), vec![100, 30]));
    assert!(
        fixture
            .slices
            .iter()
            .all(|slice| slice.address_type == Family::V4.as_str())
    );
}

#[rstest]
#[case::owned(None, (0, 0, 0))]
#[case::other_owner(Some("another-uid"), (1, 0, 1))]
fn reconcile_endpoint_slice_recreation(#[case] owner: Option<&str>, #[case] want: (usize, usize, usize)) {
    let mut fixture = with_slices(&[1]);
    if let Some(uid) = owner {
        let mut slice = (*fixture.slices[0]).clone();
        slice.metadata.owner_references.as_mut().unwrap()[0].uid = uid.to_owned();
        fixture.slices[0] = slice.into();
    }
    assert_eq!(writes(&fixture.pods(pods([1])).sync()), want);
}

#[test]
fn reconcile_endpoint_slices_named_ports() {
    let mut fixture = Fixture::new();
    fixture.spec(|spec| {
        spec.ports.as_mut().unwrap()[0].target_port = Some(serde_json::from_str("\"http\"").unwrap());
    });
    fixture.pods((1..=300).map(|n| pod(n).named_port("http", "TCP", 8080 + u16::try_from(n % 5).unwrap())));
    assert_eq!(
        (writes(&fixture.sync()), fixture.sizes()),
        ((5, 0, 0), vec![60; 5])
    );
    let numbers: BTreeSet<_> = fixture
        .slices
        .iter()
        .map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap())
        .collect();
    assert_eq!(numbers, (8080..8085).collect());
}

#[rstest]
#[case(50, &[50, 50, 50, 50, 50])]
#[case(80, &[80, 80, 80, 10])]
#[case(150, &[150, 100])]
#[case(250, &[250])]
#[case(500, &[250])]
fn reconcile_max_endpoints_per_slice(#[case] max: usize, #[case] want: &[usize]) {
    let mut fixture = Fixture::new();
    fixture.settings.max_endpoints_per_slice = max;
    fixture.pods(pods(1..=250)).sync();
    assert_eq!(fixture.sizes(), want);
}

#[test]
fn reconcile_endpoint_slices_metrics() {
    let mut fixture = Fixture::new();
    let first = fixture.pods(pods(1..=20)).sync();
    let second = fixture.pods(pods(1..=10)).sync();
    assert_eq!((first.counts.added, writes(&first)), (20, (1, 0, 0)));
    assert_eq!(
        (second.counts.endpoints, second.counts.removed, writes(&second)),
        (10, 10, (0, 1, 0))
    );
}

/// Deletion in progress: no creates, but updates and deletes; a create beside a delete is an update of the old name all the same.
#[rstest]
#[case::create_alone(&[], &[1], (0, 0, 0))]
#[case::update(&[2], &[1], (0, 1, 0))]
#[case::delete(&[1, 1], &[1], (0, 0, 1))]
#[case::create_and_delete(&[1], &[7], (0, 1, 0))]
fn reconcile_finalize_svc_deletion_timestamp(
    #[case] sizes: &[usize],
    #[case] wanted: &[usize],
    #[case] want: (usize, usize, usize),
) {
    let mut fixture = with_slices(sizes);
    fixture.service.metadata.deletion_timestamp = fixture.service.metadata.creation_timestamp.clone();
    fixture.pods(pods(wanted.iter().copied()));
    let names: BTreeSet<_> = fixture
        .slices
        .iter()
        .map(|slice| slice.metadata.name.clone())
        .collect();
    let plan = fixture.sync();
    assert_eq!(writes(&plan), want);
    assert!(
        plan.update
            .iter()
            .all(|slice| names.contains(&slice.metadata.name))
    );
}

/// Zones with their CPU, the endpoints' zones, and the expected number per zone.
#[rstest]
#[case::enough(&[("a", 4000), ("b", 4000)], &["a", "a", "b", "b"], &[("a", 2), ("b", 2)])]
#[case::redistributed(&[("a", 4000), ("b", 4000)], &["a", "a", "a", "a", "b", "b"], &[("a", 3), ("b", 3)])]
#[case::one_zone(&[("a", 4000)], &["a", "a"], &[])]
#[case::few_endpoints(&[("a", 4000), ("b", 4000)], &["a"], &[])]
#[case::overload(&[("a", 2000), ("b", 3000), ("c", 3500)], &["a", "b", "c", "c"], &[])]
fn reconcile_topology(
    #[case] zones: &[(&str, u64)],
    #[case] placed: &[&str],
    #[case] want: &[(&str, usize)],
) {
    let mut fixture = Fixture::new();
    let annotations = fixture.service.metadata.annotations.get_or_insert_default();
    annotations.insert("service.kubernetes.io/topology-mode".into(), "Auto".into());
    let node = |(zone, millicores): &(&str, u64)| Node {
        name: format!("node-{zone}"),
        zone: Some((*zone).to_owned()),
        takes_traffic: true,
        millicores: *millicores,
        addresses: vec![],
    };
    fixture.nodes = zones.iter().map(node).collect();
    fixture.pods(
        placed
            .iter()
            .enumerate()
            .map(|(n, zone)| pod(n + 1).node(&format!("node-{zone}"))),
    );
    let (_, problems) = fixture.plan();
    fixture.sync();
    let mut given: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in all_endpoints(&fixture) {
        for zone in endpoint
            .hints
            .into_iter()
            .filter_map(|hints| hints.for_zones)
            .flatten()
        {
            *given.entry(zone.name).or_default() += 1;
        }
    }
    let want: BTreeMap<_, _> = want.iter().map(|(zone, n)| ((*zone).to_owned(), *n)).collect();
    assert_eq!(given, want);
    assert_eq!(problems.len(), usize::from(want.is_empty()), "{problems:?}");
    assert!(fixture.sync().is_empty(), "hints are stable");
}

#[rstest]
#[case::same_zone("PreferSameZone", false)]
#[case::prefer_close("PreferClose", false)]
#[case::same_node("PreferSameNode", true)]
fn traffic_distribution_hints(#[case] distribution: &str, #[case] with_nodes: bool) {
    let mut fixture = Fixture::new();
    fixture.spec(|spec| spec.traffic_distribution = Some(distribution.to_owned()));
    fixture.pods([pod(1), pod(2).ready(false)]).sync();
    let endpoints = all_endpoints(&fixture);
    let hints = endpoints[0].hints.clone().unwrap();
    assert_eq!(hints.for_zones.unwrap()[0].name, "us-central1-a");
    assert_eq!(
        hints.for_nodes.map(|nodes| nodes[0].name.clone()),
        with_nodes.then(|| "node-1".to_owned())
    );
    assert_eq!(endpoints[1].hints, None, "an unready endpoint gets no hints");
    assert!(fixture.sync().is_empty());
    fixture.spec(|spec| spec.traffic_distribution = None);
    assert_eq!(writes(&fixture.sync()), (0, 1, 0));
    assert!(
        all_endpoints(&fixture)
            .iter()
            .all(|endpoint| endpoint.hints.is_none())
    );
}

#[test]
fn a_relabelled_node_changes_zones_and_hints() {
    let mut fixture = Fixture::new();
    fixture
        .spec(|spec| spec.traffic_distribution = Some("PreferClose".into()))
        .pods(pods([1]))
        .sync();
    let mut node = fixture.nodes.get("node-1").unwrap().clone();
    node.zone = Some("us-central1-b".into());
    fixture.nodes.insert(node);
    assert_eq!(writes(&fixture.sync()), (0, 1, 0));
    let endpoint = &all_endpoints(&fixture)[0];
    assert_eq!(endpoint.zone.as_deref(), Some("us-central1-b"));
    assert_eq!(
        endpoint.hints.clone().unwrap().for_zones.unwrap()[0].name,
        "us-central1-b"
    );
}

#[test]
fn one_changed_endpoint_rewrites_one_slice() {
    let mut fixture = Fixture::new();
    fixture.pods(pods(1..=1000)).sync();
    let flipped = (1..=1000).map(|n| pod(n).ready(n != 500));
    assert_eq!(writes(&fixture.pods(flipped).sync()), (0, 1, 0));
}

/// A slice that only a finalizer keeps counts as deleted: its endpoints are in another one at once, and it is neither updated nor deleted
/// again (`dropEndpointSlicesPendingDeletion` of Kubernetes).
#[test]
fn a_slice_that_is_being_deleted_is_replaced() {
    let mut fixture = with_slices(&[3]);
    let mut going = (*fixture.slices[0]).clone();
    going.metadata.deletion_timestamp = fixture.service.metadata.creation_timestamp.clone();
    fixture.slices[0] = going.into();
    fixture.pods(pods(1..=3));
    assert_eq!(writes(&fixture.sync()), (1, 0, 0));
    assert!(fixture.sync().is_empty());
    assert!(SlicePlan::delete_all(vec![fixture.slices[0].clone()]).is_empty());
}

/// Slices of the archived multus-service controller are adopted: targetRef with a resourceVersion, ports without defaults. They lack the
/// network: one update adds it, under the same name and UID, and changes nothing else.
#[test]
fn slices_of_the_archived_controller_get_the_network_label_in_place_and_nothing_else() {
    let mut fixture = Fixture::new();
    fixture.pods(pods(1..=3)).sync();
    let mut slice = (*fixture.slices[0]).clone();
    for endpoint in &mut slice.endpoints {
        endpoint.target_ref.as_mut().unwrap().resource_version = Some("4711".into());
    }
    slice.endpoints.reverse();
    slice.metadata.labels.as_mut().unwrap().remove(NETWORK_LABEL);
    slice.metadata.annotations = None;
    fixture.slices[0] = slice.clone().into();
    let plan = fixture.sync();
    assert_eq!(writes(&plan), (0, 1, 0));
    let mut written = plan.update[0].clone();
    let value = fixture.binding.network.label_value();
    assert_eq!(label(&written, NETWORK_LABEL), Some(value.as_str()));
    let annotations = written.metadata.annotations.take();
    assert_eq!(annotations.unwrap()[NETWORK_NAME_ANNOTATION], "shop/testnet1");
    written.metadata.labels.as_mut().unwrap().remove(NETWORK_LABEL);
    assert_eq!(written, slice);
    assert!(fixture.sync().is_empty());
}

#[test]
fn slices_name_the_network_of_their_service_and_ignore_its_labels() {
    let mut fixture = with_slices(&[2]);
    set_label(&mut fixture, NETWORK_LABEL, "evil");
    let other = NetworkRef::parse("other", "shop").unwrap();
    fixture.binding.network = other.clone();
    fixture.pods(pods([1, 2]));
    for pod in &mut fixture.pods {
        let pod = Arc::make_mut(pod);
        for attachment in pod.attachments.as_mut().unwrap() {
            attachment.network = "shop/other".into();
        }
    }
    let plan = fixture.sync();
    assert_eq!(writes(&plan), (0, 1, 0));
    assert_eq!(
        label(&plan.update[0], NETWORK_LABEL),
        Some(other.label_value().as_str())
    );
    assert!(fixture.sync().is_empty());
}

#[test]
fn an_endpoint_in_two_slices_stays_in_one() {
    let mut fixture = with_slices(&[2]);
    fixture.add_slice(EndpointSlice {
        metadata: with_slices(&[2]).plan().0.update[0].metadata.clone(),
        ..(*fixture.slices[0]).clone()
    });
    let mut twin = (*fixture.slices[1]).clone();
    twin.metadata.name = Some("twin".into());
    fixture.slices[1] = twin.into();
    fixture.pods(pods([1, 2]));
    assert_eq!(
        writes(&fixture.sync()),
        (0, 0, 1),
        "a create that happened twice heals"
    );
    assert_eq!(fixture.sizes(), [2]);
}

fn some_pod() -> impl Strategy<Value = PodBuilder> {
    (1..60_usize, any::<bool>(), any::<bool>(), 0..4_u16).prop_map(|(n, ready, terminating, port)| {
        let pod = pod(n).ready(ready).named_port("http", "TCP", 8080 + port);
        if terminating { pod.terminating() } else { pod }
    })
}

proptest! {
    /// From any slices to any pods: one plan leads to exactly the wanted endpoints, and a second one is empty.
    #[test]
    fn a_plan_converges_and_a_second_one_is_empty(
        before in proptest::collection::vec(some_pod(), 0..80),
        after in proptest::collection::vec(some_pod(), 0..80),
        max in 1..30_usize,
        named in any::<bool>(),
        dual in any::<bool>(),
    ) {
        let unique = |pods: Vec<PodBuilder>| -> Vec<PodBuilder> {
            let by_name: BTreeMap<_, _> = pods.into_iter().map(|pod| (pod.clone().build().name, pod)).collect();
            by_name.into_values().collect()
        };
        let mut fixture = Fixture::new();
        fixture.settings.max_endpoints_per_slice = max;
        fixture.spec(|spec| {
            if named {
                spec.ports.as_mut().unwrap()[0].target_port = Some(serde_json::from_str("\"http\"").unwrap());
            }
            if dual {
                spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
            }
        });
        fixture.pods(unique(before)).sync();
        fixture.pods(unique(after)).sync();
        let wanted: BTreeSet<_> = fixture.pods.iter().map(|pod| pod.name.to_string()).collect();
        let got: Vec<_> = all_endpoints(&fixture).into_iter().map(|e| e.target_ref.unwrap().name.unwrap()).collect();
        prop_assert_eq!(got.len(), wanted.len(), "none lost, none twice");
        prop_assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), wanted);
        prop_assert!(fixture.slices.iter().all(|slice| slice.endpoints.len() <= max));
        prop_assert!(fixture.sync().is_empty(), "the second plan rests");
    }

    /// The plan does not depend on the order of pods and slices.
    #[test]
    fn equal_inputs_give_equal_plans(mut order in Just((1..40_usize).collect::<Vec<_>>()).prop_shuffle(), max in 1..20_usize) {
        let mut sorted = Fixture::new();
        sorted.settings.max_endpoints_per_slice = max;
        let mut shuffled = sorted.clone();
        let plan = sorted.pods(pods(1..40)).plan();
        prop_assert_eq!(&plan, &shuffled.pods(pods(order.drain(..))).plan());
    }
}
