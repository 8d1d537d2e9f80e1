//! The archived controller's controller tests, restated on the pure part from watch events to the decision (its names are kept).

use crate::index::{Change, Event, Index, metadata};
use crate::manual::{MAX_SERVICES, ManualSlice};
use crate::metrics::Verdict;
use crate::objects::{Node, NodeObject, PodObject, ServiceCidr};
use crate::observe::observe;
use crate::reconcile::{Decision, reconcile};
use crate::service_status::orphaned_slices::OrphanedSlices;
use crate::service_status::problem::Reason;
use crate::settings::Settings;
use crate::triggers::affected;
use api::ObjectName;
use api::names;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use process::watch::Unreadable;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const CREATED: &str = "2026-01-01T00:00:00Z";

/// An index that is in sync, with node-1.
fn synced() -> Index {
    let mut index = Index::new(Settings::default());
    index.update(Change::Service(Event::ListDone));
    index.update(Change::Pod(Event::ListDone));
    index.update(Change::Slice(Event::ListDone));
    index.update(Change::Node(Event::ListDone));
    index.update(Change::ServiceCidr(Event::ListDone));
    let node: NodeObject = serde_json::from_value(json!({"metadata": {"name": "node-1"}})).unwrap();
    index.update(Change::Node(Event::Applied(node.into())));
    assert!(index.is_synced());
    index
}

fn service(change: Value) -> Service {
    let mut service = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "web-uid", "creationTimestamp": CREATED,
            "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME},
            "annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet1"},
        },
        "spec": {
            "clusterIP": "172.30.0.10", "ipFamilies": ["IPv4"], "selector": {"foo": "bar"},
            "ports": [{"name": "web", "port": 80, "targetPort": 80, "protocol": "TCP"}],
        },
    });
    merge(&mut service, change);
    serde_json::from_value(service).unwrap()
}

fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, value) in change {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, change) => *object = change,
    }
}

fn pod(n: usize, change: Value) -> Change {
    let status = json!([{"name": "shop/testnet1", "ips": [format!("10.1.1.{n}"), format!("fd00:1::{n}")]}])
        .to_string();
    let mut pod = json!({
        "metadata": {"name": format!("pod{n}"), "namespace": "shop", "uid": format!("pod{n}-uid"), "labels": {"foo": "bar"},
            "annotations": {names::NETWORK_STATUS_ANNOTATION: status}},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "podIP": format!("1.2.3.{}", 4 + n), "conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut pod, change);
    let object: PodObject = serde_json::from_value(pod).unwrap();
    Change::Pod(Event::Applied(object.into()))
}

fn slice(name: &str, labels: &Value) -> EndpointSlice {
    serde_json::from_value(json!({"addressType": "IPv4", "endpoints": [], "metadata": {
        "name": name, "namespace": "shop", "uid": format!("{name}-uid"), "resourceVersion": "1", "labels": labels,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "web-uid", "controller": true}]}}))
    .unwrap()
}

fn managed() -> Value {
    json!({names::SERVICE_NAME_LABEL: "web", names::MANAGED_BY_LABEL: names::MANAGED_BY, names::PROXY_NAME_LABEL: names::PROXY_NAME})
}

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn decided(index: &Index) -> Decision {
    reconcile(
        &observe(index, &OrphanedSlices::default(), &web()),
        &index.nodes,
        index.settings(),
        None,
    )
}

fn writes(decision: &Decision) -> (usize, usize, usize) {
    let slices = &decision.slices;
    (slices.create.len(), slices.update.len(), slices.delete.len())
}

fn endpoints(decision: &Decision) -> Vec<Endpoint> {
    decision
        .slices
        .create
        .iter()
        .flat_map(|slice| slice.endpoints.clone())
        .collect()
}

/// Applies a change and returns the Services that it affects.
fn update(index: &mut Index, change: Change) -> BTreeSet<ObjectName> {
    let update = index.update(change);
    affected(index, update)
}

/// Passes a complete list of manual slices to the index.
fn list_manual_slices(
    index: &mut Index,
    slices: impl IntoIterator<Item = EndpointSlice>,
) -> BTreeSet<ObjectName> {
    index.update(Change::ManualScope(Arc::clone(index.manual.scope())));
    index.update(Change::ManualSlice(Event::ListStarted));
    for slice in slices {
        let slice = ManualSlice { slice, left_out: 0 };
        index.update(Change::ManualSlice(Event::Listed(slice)));
    }
    update(index, Change::ManualSlice(Event::ListDone))
}

fn unselected() -> Change {
    Change::Service(Event::Applied(service(json!({"spec": {"selector": null}}))))
}

/// The author's slices are only read; the controller writes copies.
#[test]
fn sync_service_no_selector() {
    let mut index = synced();
    index.update(unselected());
    let mut manual = slice("by-hand", &json!({names::SERVICE_NAME_LABEL: "web"}));
    manual.endpoints = vec![serde_json::from_value(json!({"addresses": ["10.1.1.99"]})).unwrap()];
    assert_eq!(list_manual_slices(&mut index, [manual]), BTreeSet::from([web()]));
    let decision = decided(&index);
    assert_eq!(writes(&decision), (1, 0, 0));
    assert_eq!(endpoints(&decision)[0].addresses, ["10.1.1.99"]);

    let mut bare = synced();
    bare.update(unselected());
    list_manual_slices(&mut bare, []);
    assert_eq!(writes(&decided(&bare)), (0, 0, 0), "no placeholder");
}

#[test]
fn nothing_is_decided_before_the_manual_slices_are_listed() {
    let mut index = synced();
    index.update(unselected());
    index.update(Change::Slice(Event::Applied(slice("web-multus-abc", &managed()))));
    assert!(observe(&index, &OrphanedSlices::default(), &web()).is_pending());
    assert_eq!(writes(&decided(&index)), (0, 0, 0), "its copies stay");
    index.update(Change::ManualScope(Arc::default()));
    assert_eq!(
        update(&mut index, Change::ManualSlice(Event::ListDone)),
        BTreeSet::new(),
        "the list was about others"
    );
    assert!(observe(&index, &OrphanedSlices::default(), &web()).is_pending());
    assert_eq!(list_manual_slices(&mut index, []), BTreeSet::from([web()]));
    assert_eq!(writes(&decided(&index)), (0, 0, 1));
}

#[test]
fn sync_service_selector_removed() {
    let mut index = synced();
    index.update(unselected());
    index.update(Change::Slice(Event::Applied(slice("web-multus-abc", &managed()))));
    list_manual_slices(&mut index, []);
    assert_eq!(
        writes(&decided(&index)),
        (0, 0, 1),
        "what this controller made goes"
    );
}

/// Beyond so many Services without selector a new one is rejected, with a condition.
#[test]
fn a_service_whose_slices_are_not_watched_is_rejected() {
    let mut index = synced();
    for n in 0..MAX_SERVICES {
        let older = json!({"metadata": {"name": format!("older-{n}"), "creationTimestamp": "2025-01-01T00:00:00Z"}, "spec": {"selector": null}});
        index.update(Change::Service(Event::Applied(service(older))));
    }
    index.update(unselected());
    list_manual_slices(&mut index, []);
    let condition = decided(&index).condition.unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "TooManyServicesWithoutSelector")
    );
    let older = metadata(&ObjectName::new("shop", "older-7"));
    index.update(Change::Service(Event::Deleted(Box::new(older))));
    assert_eq!(
        list_manual_slices(&mut index, []),
        BTreeSet::from([web()]),
        "there is room"
    );
    assert_eq!(decided(&index).condition.unwrap().reason, "NoSelector");
}

/// A node gets the address of a manual endpoint: it is no longer an endpoint.
#[test]
fn a_manual_address_that_a_node_gets_enqueues_its_service() {
    let mut index = synced();
    index.update(unselected());
    let mut manual = slice("by-hand", &json!({names::SERVICE_NAME_LABEL: "web"}));
    manual.endpoints = vec![serde_json::from_value(json!({"addresses": ["10.1.1.99"]})).unwrap()];
    list_manual_slices(&mut index, [manual]);
    let node = Node {
        name: "node-2".into(),
        addresses: vec!["10.1.1.99".parse().unwrap()],
        ..Node::default()
    };
    assert_eq!(
        update(&mut index, Change::Node(Event::Applied(node))),
        BTreeSet::from([web()])
    );
    assert_eq!(writes(&decided(&index)), (0, 0, 0));
}

/// The ranges of the command line and of the cluster together; a change of conditions alone enqueues no Service.
#[test]
fn an_added_or_removed_service_cidr_enqueues_every_service() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    index.update(pod(1, json!({})));
    let range = || {
        Change::ServiceCidr(Event::Applied(ServiceCidr {
            name: "wide".into(),
            ranges: vec!["10.1.1.0/24".parse().unwrap()],
        }))
    };
    assert_eq!(update(&mut index, range()), BTreeSet::from([web()]));
    assert_eq!(update(&mut index, range()), BTreeSet::new());
    let decision = decided(&index);
    assert_eq!(endpoints(&decision), []);
    let mut problems = decision.problems.iter();
    assert!(problems.any(|problem| problem.reason == Reason::InvalidEndpointAddress));
    let gone = Event::Deleted(Box::new(metadata(&ObjectName::new("", "wide"))));
    assert_eq!(
        update(&mut index, Change::ServiceCidr(gone)),
        BTreeSet::from([web()])
    );
    assert_eq!(endpoints(&decided(&index)).len(), 1);
}

/// A finalizer keeps it (kubernetes/kubernetes#108779): nothing is created, a dead endpoint is removed, and no Event or condition is written.
#[test]
fn sync_service_pending_deletion() {
    let mut index = synced();
    let deleted = json!({"metadata": {"deletionTimestamp": CREATED}});
    index.update(Change::Service(Event::Applied(service(deleted))));
    index.update(pod(1, json!({})));
    let decision = decided(&index);
    assert_eq!(
        (writes(&decision), decision.condition, decision.problems),
        ((0, 0, 0), None, vec![])
    );
    let mut existing = slice("web-multus-abc", &managed());
    let ports = json!([{"name": "web", "port": 80, "protocol": "TCP"}]);
    existing.ports = serde_json::from_value(ports).unwrap();
    let dead = ["10.1.1.1", "10.1.1.2"].map(|address| json!({"addresses": [address]}));
    existing.endpoints = serde_json::from_value(json!(dead)).unwrap();
    index.update(Change::Slice(Event::Applied(existing)));
    let decision = decided(&index);
    assert_eq!(writes(&decision), (0, 1, 0));
    let left: Vec<_> = decision.slices.update[0].endpoints.iter().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].addresses, ["10.1.1.1"]);
}

#[test]
fn sync_service_with_selector() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    let decision = decided(&index);
    assert_eq!(writes(&decision), (1, 0, 0));
    let slice = &decision.slices.create[0];
    assert!(
        slice
            .metadata
            .generate_name
            .as_deref()
            .is_some_and(|name| name.starts_with("web"))
    );
    assert_eq!(
        (slice.ports.as_deref(), slice.endpoints.len()),
        (Some(&[][..]), 0)
    );
    assert_eq!(
        slice.metadata.labels.as_ref().unwrap()[names::SERVICE_NAME_LABEL],
        "web"
    );
    assert_eq!(
        slice.metadata.annotations.as_ref().unwrap()[names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION],
        CREATED
    );
}

#[test]
fn sync_service_missing() {
    let decision = decided(&synced());
    assert_eq!(
        (writes(&decision), decision.trigger_times),
        ((0, 0, 0), None),
        "nothing to write, nothing to remember"
    );

    // It existed: its slices are deleted, and its trigger times are forgotten.
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    index.update(Change::Slice(Event::Applied(slice("web-multus-abc", &managed()))));
    let known = decided(&index).trigger_times;
    assert!(known.is_some());
    let affected = update(
        &mut index,
        Change::Service(Event::Deleted(Box::new(metadata(&web())))),
    );
    assert_eq!(affected, BTreeSet::from([web()]));
    let observed = observe(&index, &OrphanedSlices::default(), &web());
    let decision = reconcile(&observed, &index.nodes, index.settings(), known.as_ref());
    assert_eq!(
        (writes(&decision), decision.trigger_times, decision.condition),
        ((0, 0, 1), None, None)
    );
    assert_eq!(decision.problems, []);
    assert_eq!(
        observed.former_uid(),
        Some("web-uid"),
        "by whose slices it is known"
    );
}

/// The second sync writes no condition; the alert on rejected Services must not fire for it.
#[test]
fn the_verdict_of_a_service_stays_when_its_condition_is_current() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    let first = decided(&index);
    let condition = first.condition.unwrap();
    assert_eq!(first.verdict, Some(Verdict::of(&condition)));
    let status = json!({"status": {"conditions": [condition]}});
    for change in [
        status.clone(),
        json!({"metadata": {"deletionTimestamp": CREATED, "finalizers": ["a/b"]}, "status": status["status"]}),
    ] {
        index.update(Change::Service(Event::Applied(service(change))));
        let later = decided(&index);
        assert_eq!((later.condition, later.verdict), (None, first.verdict));
    }
    assert_eq!(decided(&synced()).verdict, None);
}

#[test]
fn an_undecodable_service_keeps_its_slices() {
    let mut index = synced();
    index.update(Change::Slice(Event::Applied(slice("web-multus-abc", &managed()))));
    let (error, metadata) = (String::new(), metadata(&web()));
    let unreadable = Event::Unreadable(Box::new(Unreadable { error, metadata }));
    index.update(Change::Service(unreadable));
    assert_eq!(writes(&decided(&index)), (0, 0, 0));
}

#[test]
fn sync_service_pod_selection() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    index.update(pod(1, json!({})));
    index.update(pod(2, json!({"metadata": {"labels": {"foo": "boo"}}})));
    let endpoints = endpoints(&decided(&index));
    assert_eq!(endpoints.len(), 1);
    assert_eq!(
        endpoints[0].target_ref.as_ref().unwrap().name.as_deref(),
        Some("pod1")
    );
}

/// The watch delivers only slices with our managed-by value; of those, the ones with the Service's name count.
#[test]
fn sync_service_endpoint_slice_label_selection() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    let other = json!({names::SERVICE_NAME_LABEL: "other", names::MANAGED_BY_LABEL: names::MANAGED_BY});
    let nameless = json!({names::MANAGED_BY_LABEL: names::MANAGED_BY});
    for (name, labels) in [
        ("matching-1", managed()),
        ("matching-2", managed()),
        ("other", other),
        ("nameless", nameless),
    ] {
        let mut slice = slice(name, &labels);
        slice.ports = Some(vec![serde_json::from_value(json!({"port": 1})).unwrap()]);
        index.update(Change::Slice(Event::Applied(slice)));
    }
    let before = index.slices.of(&web());
    let decision = decided(&index);
    assert_eq!(
        writes(&decision),
        (0, 1, 1),
        "one becomes the placeholder, one goes"
    );
    assert_eq!(index.slices.of(&web()), before, "inputs are not changed");
}

/// Ports of three protocols, two families on the pod, one on the Service.
#[rstest]
#[case::ipv4("IPv4", &["10.1.1.1", "10.1.1.2"])]
#[case::ipv6("IPv6", &["fd00:1::1", "fd00:1::2"])]
fn sync_service(#[case] family: &str, #[case] want: &[&str]) {
    let mut index = synced();
    let spec = json!({"ipFamilies": [family], "ports": [
        {"name": "tcp-example", "targetPort": 80, "port": 80, "protocol": "TCP"},
        {"name": "udp-example", "targetPort": 161, "port": 161, "protocol": "UDP"},
        {"name": "sctp-example", "targetPort": 3456, "port": 3456, "protocol": "SCTP"}]});
    index.update(Change::Service(Event::Applied(service(json!({"spec": spec})))));
    index.update(pod(1, json!({})));
    index.update(pod(2, json!({})));
    let decision = decided(&index);
    assert_eq!(writes(&decision), (1, 0, 0));
    let slice = &decision.slices.create[0];
    assert_eq!(slice.address_type, family);
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| (p.protocol.as_deref().unwrap(), p.port.unwrap()))
        .collect();
    assert_eq!(ports, [("TCP", 80), ("UDP", 161), ("SCTP", 3456)]);
    let addresses: Vec<_> = slice.endpoints.iter().map(|e| e.addresses[0].as_str()).collect();
    assert_eq!(addresses, want);
    assert_eq!(
        slice.metadata.annotations.as_ref().unwrap()[names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION],
        CREATED
    );
}

/// The archived multus-service controller had a feature gate to leave terminating pods out. Kubernetes no longer has this gate, nor does
/// this controller.
#[rstest]
#[case::ready("True", (false, true, true))]
#[case::not_ready("False", (false, false, true))]
fn sync_service_terminating(#[case] ready: &str, #[case] want: (bool, bool, bool)) {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    index.update(pod(1, json!({"metadata": {"deletionTimestamp": CREATED}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})));
    let conditions = endpoints(&decided(&index))[0].conditions.clone().unwrap();
    assert_eq!(
        (
            conditions.ready.unwrap(),
            conditions.serving.unwrap(),
            conditions.terminating.unwrap()
        ),
        want
    );
}

#[test]
fn a_missing_network_is_reported_once_the_networks_are_known() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    assert_eq!(decided(&index).problems, [], "a cluster without that kind");
    assert_eq!(
        update(&mut index, Change::Network(Event::ListDone)),
        BTreeSet::from([web()])
    );
    let reasons: Vec<_> = decided(&index)
        .problems
        .iter()
        .map(|problem| problem.reason)
        .collect();
    assert_eq!(reasons, [Reason::NetworkNotFound]);
    assert_eq!(
        update(
            &mut index,
            Change::Network(Event::Applied(ObjectName::new("shop", "testnet1")))
        ),
        BTreeSet::from([web()])
    );
    assert_eq!(decided(&index).problems, []);
}

/// Events that enqueue the Service, and events that do not.
#[test]
fn only_what_changes_a_decision_enqueues_a_service() {
    let mut index = synced();
    let applied = |change: Value| Change::Service(Event::Applied(service(change)));
    let none = BTreeSet::new();
    assert_eq!(update(&mut index, applied(json!({}))), BTreeSet::from([web()]));
    assert_eq!(
        update(&mut index, applied(json!({"metadata": {"resourceVersion": "2"}}))),
        none,
        "only its version"
    );
    assert_eq!(update(&mut index, pod(1, json!({}))), BTreeSet::from([web()]));
    assert_eq!(
        update(&mut index, pod(1, json!({"status": {"hostIP": "192.168.0.11"}}))),
        none,
        "a field that no decision reads"
    );
    assert_eq!(
        update(
            &mut index,
            pod(2, json!({"metadata": {"labels": {"foo": "boo"}}}))
        ),
        none,
        "not selected"
    );
    assert_eq!(
        update(
            &mut index,
            pod(1, json!({"metadata": {"labels": {"foo": "boo"}}}))
        ),
        BTreeSet::from([web()]),
        "selected before"
    );
    index.update(pod(1, json!({})));
    assert_eq!(
        update(
            &mut index,
            pod(
                1,
                json!({"metadata": {"annotations": {names::NETWORK_STATUS_ANNOTATION: "[]"}}})
            )
        ),
        BTreeSet::from([web()]),
        "unplugged"
    );
}

/// checkNodeTopologyDistribution: capacity matters to Services with the annotation, a zone to those with pods on the node.
#[test]
fn check_node_topology_distribution() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    let node = |name: &str, cpu: u64| {
        Change::Node(Event::Applied(Node {
            name: name.into(),
            takes_traffic: true,
            millicores: cpu,
            ..Node::default()
        }))
    };
    assert_eq!(
        update(&mut index, node("node-2", 1000)),
        BTreeSet::new(),
        "no hints are requested, no pod is there"
    );
    index.update(pod(1, json!({})));
    assert_eq!(
        update(&mut index, node("node-1", 1000)),
        BTreeSet::from([web()]),
        "its pod is there"
    );
    let auto = json!({"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}});
    index.update(Change::Service(Event::Applied(service(auto))));
    assert_eq!(
        update(&mut index, node("node-2", 2000)),
        BTreeSet::from([web()]),
        "shares change"
    );
    assert_eq!(update(&mut index, node("node-2", 2000)), BTreeSet::new());
}

/// A node that gets the address of a pod on any node removes the endpoint, and restores it when it loses the address.
#[test]
fn an_address_that_a_node_gets_is_no_endpoint() {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    index.update(pod(1, json!({})));
    let node = |addresses: &[&str]| {
        Change::Node(Event::Applied(Node {
            name: "node-2".into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..Node::default()
        }))
    };
    assert_eq!(update(&mut index, node(&["192.168.0.12"])), BTreeSet::new());
    assert_eq!(
        update(&mut index, node(&["192.168.0.12", "10.1.1.1"])),
        BTreeSet::from([web()])
    );
    let decision = decided(&index);
    assert_eq!(endpoints(&decision), []);
    assert!(
        decision
            .problems
            .iter()
            .any(|n| n.reason == Reason::InvalidEndpointAddress && n.text().contains("10.1.1.1"))
    );
    assert_eq!(
        update(&mut index, node(&["192.168.0.12"])),
        BTreeSet::from([web()])
    );
    assert_eq!(endpoints(&decided(&index)).len(), 1);
}

/// Written slices count although the watch is behind: with 10 cached and 12 written, the plan starts from 12, without an error.
#[rstest]
#[case::cache_is_behind("10", "12", "12")]
#[case::equal("10", "10", "10")]
#[case::cache_is_ahead("10", "1", "10")]
fn sync_service_stale_informer(#[case] cached: &str, #[case] written: &str, #[case] want: &str) {
    let mut index = synced();
    index.update(Change::Service(Event::Applied(service(json!({})))));
    let at = |version: &str| {
        let mut slice = slice("web-multus-abc", &managed());
        slice.metadata.resource_version = Some(version.to_owned());
        slice.endpoints = vec![serde_json::from_value(json!({"addresses": ["10.1.1.99"]})).unwrap()];
        slice
    };
    index.update(Change::Slice(Event::Applied(at(cached))));
    index.slices.record_written(at(written));
    index.update(Change::Slice(Event::Applied(at(cached))));
    let decision = decided(&index);
    let update = &decision.slices.update[0];
    assert_eq!(update.metadata.resource_version.as_deref(), Some(want));
}
