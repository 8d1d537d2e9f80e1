use super::*;
use crate::facts::{Cluster, Networks};
use api::names;
use serde_json::json;

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(name: &str, status: &str, reason: &str) -> Service {
    of(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME},
            "annotations": {names::SERVICE_NETWORK_ANNOTATION: "macvlan1"}},
        "status": {"conditions": [{"type": names::ACCEPTED_CONDITION, "status": status, "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
}

fn proxy(node: &str, status: &str, reason: &str) -> k8s_openapi::api::core::v1::Pod {
    of(json!({
        "metadata": {"name": format!("proxy-{node}")},
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"},
            {"type": names::RULES_APPLIED_CONDITION, "status": status, "reason": reason, "message": "why"}]},
    }))
}

fn facts() -> Installation {
    Installation {
        version: Ok("v1.33.0".into()),
        cluster: Cluster {
            config: Ok(Some(of(
                json!({"apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig", "metadata": {"name": "cluster"}, "spec": {},
                "status": {"observedVersion": "0.1.0", "conditions": [
                    {"type": "Available", "status": "True", "reason": "AsExpected", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
            ))),
            ranges: Ok(vec![]),
            nodes: Ok(vec![]),
            lease: Ok(Some(of(
                json!({"spec": {"holderIdentity": "controller-1", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}}),
            ))),
            controller: Ok(None),
            proxies: Ok(vec![
                proxy("node-1", "True", "Applied"),
                proxy("node-2", "True", "Applied"),
            ]),
            now: "2026-01-01T00:00:05Z".parse().unwrap(),
        },
        networks: Ok(Networks {
            found: vec![ObjectName::new("shop", "macvlan1")],
            only_in: None,
        }),
        services: Ok(vec![service("web", "True", "Accepted")]),
        pods: Ok(vec![of(
            json!({"metadata": {"name": "c", "namespace": "shop", "annotations": {names::NETWORK_STATUS_ANNOTATION:
            r#"[{"name": "shop/macvlan1", "interface": "net1", "ips": ["10.1.0.9"]}]"#}}}),
        )]),
        policies: Ok(vec![]),
        workloads: Ok(vec![]),
        rejected: vec![],
    }
}

#[test]
fn a_working_installation_has_no_problem() {
    let status = status(&facts());
    assert_eq!(
        (status.problems.as_slice(), status.warnings.as_slice()),
        (&[][..], &[][..]),
        "{status:?}"
    );
    assert_eq!(status.controller, "controller-1 leads");
    assert_eq!(status.version.as_deref(), Some("0.1.0"));
    let [network] = status.networks.as_slice() else {
        panic!("{status:?}")
    };
    assert_eq!(
        (network.exists, network.services, network.clients),
        (Some(true), 1, 1)
    );
    assert_eq!(status.nodes.len(), 2);
}

#[test]
fn problems_come_first_and_pod_level_ones_are_warnings() {
    let mut facts = facts();
    facts.cluster.proxies = Ok(vec![
        proxy("node-1", "True", "Applied"),
        proxy("node-2", "False", "PartiallyApplied"),
        proxy("node-3", "False", "NoSupportedBackend"),
    ]);
    facts.services = Ok(vec![
        service("web", "False", "InvalidNetwork"),
        service("db", "True", "AcceptedWithWarnings"),
    ]);
    facts.networks = Ok(Networks::default());
    facts.cluster.now = "2026-01-01T01:00:00Z".parse().unwrap();
    let status = status(&facts);
    assert!(!status.is_well());
    let has = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    for text in [
        "node node-3: NoSupportedBackend",
        "Service shop/web: InvalidNetwork",
        "network shop/macvlan1 does not exist",
        "renewed its Lease",
    ] {
        assert!(has(&status.problems, text), "{text}: {status:?}");
    }
    assert!(
        has(&status.warnings, "node node-2: PartiallyApplied: why")
            && has(&status.warnings, "Service shop/db"),
        "{status:?}"
    );
    assert_eq!(status.nodes[2].node, "node-1", "nodes without problems come last");
}
