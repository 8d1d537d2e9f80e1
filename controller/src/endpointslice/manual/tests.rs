//! Tests: the parts of an author's slices that are copied, and those that are ignored.

use super::*;
use crate::endpointslice::fixture::Fixture;
use crate::endpointslice::{SlicePlan, plan_manual};
use crate::manual::trim;
use api::names::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rstest::rstest;
use serde_json::{Value, json};

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.settings.service_cidrs = vec!["172.30.0.0/16".parse::<IpNet>().unwrap()];
    fixture.spec(|spec| spec.selector = None);
    fixture
}

fn written(name: &str, change: &Value) -> Arc<ManualSlice> {
    let mut slice = json!({"addressType": "IPv4", "endpoints": [], "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
        "metadata": {"name": name, "namespace": "shop", "labels": {SERVICE_NAME_LABEL: "web"}}});
    let fields = change.as_object().unwrap().clone();
    slice.as_object_mut().unwrap().extend(fields);
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    Arc::new(ManualSlice {
        slice: trim(slice),
        left_out: 0,
    })
}

fn planned(fixture: &Fixture, written: &[Arc<ManualSlice>]) -> (SlicePlan, Vec<Problem>) {
    let target = Target {
        service: &fixture.service,
        network: &fixture.binding.network,
        slices: &fixture.slices,
        nodes: &fixture.nodes,
        trigger_time: None,
        settings: &fixture.settings,
        has_placeholder: false,
    };
    plan_manual(&target, written)
}

fn addresses(plan: &SlicePlan) -> Vec<&str> {
    let slices = plan.create.iter().chain(&plan.update);
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let mut all: Vec<_> = endpoints.map(|endpoint| endpoint.addresses[0].as_str()).collect();
    all.sort_unstable();
    all
}

/// In addition to a valid slice each case has an endpoint or a slice that is ignored.
#[rstest]
#[case::loopback(json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}), Reason::InvalidEndpointAddress, "loopback")]
#[case::link_local(json!({"endpoints": [{"addresses": ["169.254.0.1"]}]}), Reason::InvalidEndpointAddress, "link-local")]
#[case::multicast(json!({"endpoints": [{"addresses": ["239.1.1.1"]}]}), Reason::InvalidEndpointAddress, "multicast")]
#[case::node(json!({"endpoints": [{"addresses": ["192.168.0.11"]}]}), Reason::InvalidEndpointAddress, "a node")]
#[case::service_range(json!({"endpoints": [{"addresses": ["172.30.0.1"]}]}), Reason::InvalidEndpointAddress, "172.30.0.0/16")]
#[case::nonsense(json!({"endpoints": [{"addresses": ["db"]}]}), Reason::InvalidEndpointAddress, "no IP address|not an IP address")]
#[case::none(json!({"endpoints": [{"addresses": []}]}), Reason::InvalidEndpointAddress, "not an IP address")]
#[case::other_family(json!({"endpoints": [{"addresses": ["fd00::2"]}]}), Reason::InvalidEndpointAddress, "no IPv4 address")]
#[case::fqdn(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example.com"]}]}), Reason::EndpointsIgnored, "FQDN")]
#[case::no_family_of_the_service(json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::2"]}]}), Reason::EndpointsIgnored, "spec.ipFamilies")]
fn ignored_endpoints_are_named_and_affect_nothing_else(
    #[case] bad: Value,
    #[case] reason: Reason,
    #[case] text: &str,
) {
    let good = written("good", &json!({"endpoints": [{"addresses": ["10.1.0.2"]}]}));
    let (plan, problems) = planned(&fixture(), &[written("bad", &bad), good]);
    assert_eq!(addresses(&plan), ["10.1.0.2"]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let note = problems[0].text();
    assert_eq!(problems[0].reason, reason);
    assert!(text.split('|').any(|text| note.contains(text)), "{note}");
    assert!(note.contains("EndpointSlice bad"), "{note}");
}

#[test]
fn the_first_of_several_addresses_is_used() {
    let several = written(
        "s",
        &json!({"endpoints": [{"addresses": ["10.1.0.2", "10.1.0.3", "10.1.0.4"]}]}),
    );
    let (plan, problems) = planned(&fixture(), &[several]);
    assert_eq!(addresses(&plan), ["10.1.0.2"]);
    assert_eq!(problems[0].reason, Reason::EndpointsIgnored);
}

#[test]
fn endpoints_beyond_the_budget_are_reported() {
    let mut cut = (*written("s", &json!({"endpoints": [{"addresses": ["10.1.0.2"]}]}))).clone();
    cut.left_out = 5;
    let (plan, problems) = planned(&fixture(), &[Arc::new(cut)]);
    assert_eq!(addresses(&plan), ["10.1.0.2"]);
    assert!(
        problems[0].message.contains("at most 1000 endpoints"),
        "{problems:?}"
    );
}

/// A slice with hints, conditions and a reference; what Kubernetes leaves to defaults is written out.
#[test]
fn an_endpoint_is_copied_as_its_author_wrote_it() {
    let full = json!({"addresses": ["10.1.0.2"], "hostname": "db-0", "nodeName": "node-9", "zone": "east",
        "hints": {"forZones": [{"name": "east"}]}, "conditions": {"ready": false, "terminating": true},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "db-0", "uid": "u", "resourceVersion": "7"}});
    let foreign =
        json!({"addresses": ["10.1.0.3"], "targetRef": {"kind": "Pod", "namespace": "bank", "name": "x"}});
    let (plan, problems) = planned(
        &fixture(),
        &[written("s", &json!({"endpoints": [full, foreign]}))],
    );
    assert_eq!(problems, []);
    let copied: Vec<_> = plan.create[0]
        .endpoints
        .iter()
        .map(|endpoint| json!(endpoint))
        .collect();
    let of = |address: &str| {
        copied
            .iter()
            .find(|endpoint| endpoint["addresses"][0] == address)
            .unwrap()
    };
    assert_eq!(
        of("10.1.0.2"),
        &json!({"addresses": ["10.1.0.2"], "hostname": "db-0", "nodeName": "node-9", "zone": "east",
            "hints": {"forZones": [{"name": "east"}]}, "conditions": {"ready": false, "serving": false, "terminating": true},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "db-0", "uid": "u"}})
    );
    assert_eq!(
        of("10.1.0.3"),
        &json!({"addresses": ["10.1.0.3"], "conditions": {"ready": true, "serving": true, "terminating": false}})
    );
}

#[test]
fn a_second_plan_is_empty_and_hints_follow_their_author() {
    let mut fixture = fixture();
    let hinted = |zone: &str| {
        let endpoint = json!({"addresses": ["10.1.0.2"], "hints": {"forZones": [{"name": zone}]}});
        [written("s", &json!({"endpoints": [endpoint]}))]
    };
    for slice in planned(&fixture, &hinted("east")).0.create {
        fixture.add_slice(slice);
    }
    assert!(planned(&fixture, &hinted("east")).0.is_empty());
    let (plan, _) = planned(&fixture, &hinted("west"));
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 1, 0)
    );
    let (plan, _) = planned(&fixture, &[]);
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 0, 1),
        "and no placeholder"
    );
}

/// One address in two slices with equal ports is one endpoint, as in kube-proxy; with other ports it is one for each.
#[test]
fn an_address_counts_once_for_equal_ports() {
    let of = |name: &str, port: u16, ready: bool| {
        let endpoint = json!({"addresses": ["10.1.0.2"], "conditions": {"ready": ready}});
        written(
            name,
            &json!({"endpoints": [endpoint], "ports": [{"name": "web", "port": port}]}),
        )
    };
    let (plan, _) = planned(
        &fixture(),
        &[of("a", 80, true), of("b", 80, false), of("c", 81, true)],
    );
    assert_eq!(addresses(&plan), ["10.1.0.2", "10.1.0.2"]);
    assert_eq!(plan.create.len(), 2);
    let ready = |slice: &EndpointSlice| slice.endpoints[0].conditions.as_ref().unwrap().ready;
    assert!(
        plan.create.iter().all(|slice| ready(slice) == Some(true)),
        "the first counts"
    );
}

#[test]
fn a_port_that_no_slice_has_is_reported() {
    let other = json!({"endpoints": [{"addresses": ["10.1.0.2"]}], "ports": [{"name": "http", "port": 80}, {"name": "web"}]});
    let (_, problems) = planned(&fixture(), &[written("s", &other)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].reason, Reason::TargetPortNotFound);
    assert!(problems[0].message.contains("port \"web\" (TCP)"), "{problems:?}");
}

#[rstest]
#[case::written(json!({SERVICE_NAME_LABEL: "web", MANAGED_BY_LABEL: "endpointslice-controller.k8s.io"}))]
#[case::mirrored(json!({SERVICE_NAME_LABEL: "web", MANAGED_BY_LABEL: "endpointslicemirroring-controller.k8s.io",
    "endpoints.kubernetes.io/managed-by": "endpoint-controller"}))]
fn slices_that_kubernetes_wrote_for_a_selector_are_ignored(#[case] labels: Value) {
    let orphaned = json!({"endpoints": [{"addresses": ["10.128.0.7"]}], "metadata": {"name": "s", "namespace": "shop", "labels": labels}});
    let (plan, problems) = planned(&fixture(), &[written("s", &orphaned)]);
    assert!(plan.is_empty());
    assert_eq!(problems, [], "the caller names it");
}
