use super::*;
use crate::facts::{Applied, Client, Cluster, Facts};
use api::names;
use rstest::rstest;
use serde_json::json;

fn service(name: &str, network: &str, spec: &serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-uid"),
            "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME}, "annotations": {names::SERVICE_NETWORK_ANNOTATION: network}},
        "spec": spec,
    }))
    .unwrap()
}

/// A client with a planned flow to each of three Services; the rules in force are not known.
pub(crate) fn facts() -> Facts {
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {names::SERVICE_NAME_LABEL: "web", names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "web-uid"}]},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.1.0.2"], "conditions": {"ready": true}, "nodeName": "node-1", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-a"}},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": true}, "nodeName": "node-2"},
        ],
    });
    let pod = json!({
        "metadata": {"name": "client", "namespace": "shop", "annotations": {names::NETWORK_STATUS_ANNOTATION:
            json!([{"name": "shop/macvlan1", "interface": "net1", "ips": ["10.1.0.9"]}]).to_string()}},
        "spec": {"nodeName": "node-1", "containers": []},
    });
    let ports = json!([{"name": "http", "port": 80}]);
    Facts {
        cluster: Cluster {
            config: Ok(None),
            ranges: Ok(vec![]),
            nodes: Ok(vec![]),
            lease: Ok(None),
            controller: Ok(None),
            proxies: Ok(vec![]),
            now: jiff::Timestamp::UNIX_EPOCH,
        },
        services: Ok(vec![
            service(
                "web",
                "macvlan1",
                &json!({"clusterIPs": ["172.30.0.10"], "ports": ports, "sessionAffinity": "ClientIP"}),
            ),
            service(
                "other",
                "macvlan2",
                &json!({"clusterIPs": ["172.30.0.11"], "ports": ports}),
            ),
            service(
                "empty",
                "macvlan1",
                &json!({"clusterIPs": ["172.30.0.12"], "ports": ports}),
            ),
        ]),
        networks: Err(ReadError::NotRead),
        pods: Err(ReadError::NotRead),
        slices: Ok(vec![serde_json::from_value(slice).unwrap()]),
        client: Some(Client {
            key: ObjectName::new("shop", "client"),
            pod: Ok(Some(serde_json::from_value(pod).unwrap())),
        }),
        applied: Err(ReadError::NotAvailable(
            "no proxy is running on node node-1".to_owned(),
        )),
    }
}

fn traced(facts: &Facts, to: &str) -> Trace {
    trace(facts, &ObjectName::new("shop", "client"), &to.parse().unwrap())
}

#[rstest]
#[case("172.30.0.10:80")]
#[case("service/web:http")]
#[case("web.shop:80/tcp")]
fn a_flow_to_a_service_is_translated(#[case] to: &str) {
    let answer = traced(&facts(), to);
    assert!(answer.is_well(), "{answer:?}");
    let [flow] = answer.flows.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(
        flow.route.as_deref(),
        Some("172.30.0.10 dev net1 src 10.1.0.9 proto 77")
    );
    assert_eq!(
        (flow.source.as_deref(), flow.affinity_seconds),
        (Some("10.1.0.9"), Some(10_800))
    );
    let endpoints: Vec<_> = flow
        .endpoints
        .iter()
        .map(|one| (one.address.as_str(), one.one_in))
        .collect();
    assert_eq!(endpoints, [("10.1.0.2:8080", 2), ("10.1.0.3:8080", 2)]);
    assert_eq!(flow.endpoints[0].pod.as_deref(), Some("shop/web-a"));
    assert!(
        answer.applied.contains("no proxy is running on node node-1"),
        "{}",
        answer.applied
    );
}

#[rstest]
#[case::other_port("web:81", Fate::Rejected, "it has 80/tcp")]
#[case::other_protocol("web:80/udp", Fate::Rejected, "it has 80/tcp")]
#[case::no_endpoint("empty:80", Fate::Rejected, "no endpoint is ready")]
#[case::other_network("other:80", Fate::Passed, "not attached to network shop/macvlan2")]
fn an_untranslated_flow_has_a_reason(#[case] to: &str, #[case] fate: Fate, #[case] why: &str) {
    let answer = traced(&facts(), to);
    assert!(!answer.is_well());
    let [flow] = answer.flows.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(flow.fate, fate);
    assert!(
        flow.why.as_ref().is_some_and(|text| text.contains(why)),
        "{flow:?}"
    );
}

#[test]
fn an_unrelated_address_is_not_a_problem() {
    let answer = traced(&facts(), "10.9.9.9:80");
    assert!(
        answer.is_well() && answer.flows[0].fate == Fate::Passed,
        "{answer:?}"
    );
}

#[rstest]
#[case::no_service("absent:80", "explain service/absent")]
#[case::no_port("web:ftp", "\"ftp\"")]
fn an_unknown_destination_is_a_problem(#[case] to: &str, #[case] problem: &str) {
    let answer = traced(&facts(), to);
    assert!(!answer.is_well() && answer.flows.is_empty());
    assert!(answer.problem.is_some_and(|text| text.contains(problem)));
}

/// Networks are isolated: the same address can belong to different pods.
#[test]
fn an_endpoint_is_named_by_the_slices_of_its_own_service() {
    let mut facts = facts();
    let mut other = facts.slices.as_ref().unwrap()[0].clone();
    other.metadata.namespace = Some("bank".to_owned());
    for endpoint in &mut other.endpoints {
        endpoint.node_name = Some("elsewhere".to_owned());
    }
    facts.slices.as_mut().unwrap().insert(0, other);
    let answer = traced(&facts, "web:80");
    let nodes: Vec<_> = answer.flows[0]
        .endpoints
        .iter()
        .map(|one| one.node.as_deref())
        .collect();
    assert_eq!(nodes, [Some("node-1"), Some("node-2")]);
}

/// Differences between the applied state of a node and the plan are reported.
#[test]
fn differences_from_the_applied_state_are_reported() {
    let mut facts = facts();
    facts.applied = Ok(Applied {
        proxy: "multus-service-proxy-a".to_owned(),
        rules: rules::AppliedRules::default(),
    });
    let answer = traced(&facts, "web:80");
    assert!(!answer.is_well());
    let differences = &answer.flows[0].differences;
    assert!(
        differences
            .iter()
            .any(|text| text == "endpoints: planned 10.1.0.2:8080, 10.1.0.3:8080, applied none"),
        "{differences:?}"
    );
    assert_eq!(differences.len(), 3, "{differences:?}");
}
