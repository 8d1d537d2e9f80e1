//! Spelling: the exact text, and what a change leaves out.

use super::*;
use api::network_status::NetworkStatus;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

/// Service `web/nginx` (TCP http, UDP dns) with these endpoints on macvlan1, and `web/empty` with none.
fn rules(hosts: &[u8]) -> PodRules {
    let metadata = |name: &str| {
        json!({
            "name": name, "namespace": "web", "uid": format!("uid-{name}"),
            "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
            "annotations": {"k8s.v1.cni.cncf.io/service-network": "macvlan1"},
        })
    };
    let service = |name: &str, vips: &[&str], ports: serde_json::Value| -> Service {
        serde_json::from_value(
            json!({"metadata": metadata(name), "spec": {"clusterIPs": vips, "ports": ports}}),
        )
        .unwrap()
    };
    let slice = |suffix: &str, family: &str, addresses: Vec<String>| -> EndpointSlice {
        let endpoints: Vec<_> = addresses
            .into_iter()
            .map(|address| json!({"addresses": [address]}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("nginx-multus-{suffix}"), "namespace": "web",
                "labels": {"endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io", "kubernetes.io/service-name": "nginx"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "nginx", "uid": "uid-nginx"}],
            },
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        }))
        .unwrap()
    };
    let services = [
        service(
            "nginx",
            &["172.30.0.10", "fd00:96::a"],
            json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        ),
        service("empty", &["172.30.0.11"], json!([{"port": 80}])),
    ];
    let slices = [
        slice(
            "a",
            "IPv4",
            hosts.iter().map(|host| format!("10.1.0.{host}")).collect(),
        ),
        slice(
            "b",
            "IPv6",
            hosts.iter().map(|host| format!("fd00:1::{host}")).collect(),
        ),
    ];
    let net1 = NetworkStatus {
        network: "web/macvlan1".to_owned(),
        interface: "net1".to_owned(),
        addresses: vec!["10.1.0.7".parse().unwrap(), "fd00:1::7".parse().unwrap()],
    };
    ::rules::plan(&services, &slices, &[net1]).rules
}

fn known(chains: &Chains) -> BTreeMap<String, Option<Vec<String>>> {
    chains
        .iter()
        .map(|(chain, rules)| (chain.clone(), Some(rules.clone())))
        .collect()
}

#[test]
fn translation_reads_like_this() {
    let change = Change {
        jumps: Table::Nat.jumps().to_vec(),
        ..change(&BTreeMap::new(), nat(&rules(&[2, 3, 4]), Family::V4))
    };
    insta::assert_snapshot!(change.text(Table::Nat));
}

#[test]
fn translation_reads_like_this_in_ipv6() {
    insta::assert_snapshot!(change(&BTreeMap::new(), nat(&rules(&[2]), Family::V6)).text(Table::Nat));
}

#[test]
fn refusal_reads_like_this() {
    let vips = BTreeSet::from(["172.30.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()]);
    let change = Change {
        jumps: Table::Filter.jumps().to_vec(),
        ..change(&BTreeMap::new(), filter(&vips, Family::V4))
    };
    insta::assert_snapshot!(change.text(Table::Filter));
}

#[test]
fn refusal_reads_like_this_in_ipv6() {
    let vips = BTreeSet::from(["172.30.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()]);
    insta::assert_snapshot!(change(&BTreeMap::new(), filter(&vips, Family::V6)).text(Table::Filter));
}

#[test]
fn an_endpoint_change_sends_only_the_chains_of_its_service() {
    let change = change(
        &known(&nat(&rules(&[2, 3]), Family::V4)),
        nat(&rules(&[2, 4]), Family::V4),
    );
    assert_eq!(
        (change.set.len(), change.delete.len()),
        (2, 0),
        "one chain for each port: {change:?}"
    );
    assert!(!change.set.contains_key(&services_chain()));
}

#[test]
fn the_last_endpoint_takes_its_chain_along() {
    let change = change(
        &known(&nat(&rules(&[2]), Family::V4)),
        nat(&rules(&[]), Family::V4),
    );
    assert_eq!(change.set, Chains::from([(services_chain(), vec![])]));
    assert_eq!(change.delete.len(), 2);
}

#[test]
fn a_family_without_a_source_is_not_translated() {
    let mut rules = rules(&[2]);
    rules
        .networks
        .values_mut()
        .for_each(|attached| attached.ipv6 = None);
    assert_eq!(
        nat(&rules, Family::V6),
        Chains::from([(services_chain(), vec![])])
    );
}

#[test]
fn chain_names_fit_the_kernel() {
    let service = ObjectName {
        namespace: "n".repeat(63),
        name: "s".repeat(63),
    };
    let name = service_chain(
        &service,
        Port {
            protocol: ::rules::Protocol::Sctp,
            number: 65535,
        },
    );
    assert_eq!(name.len(), 28);
}

proptest! {
    #[test]
    fn each_endpoint_is_as_likely_as_the_other(n in 1usize..200) {
        let mut left = 1.0_f64;
        for i in 0..n {
            let share = if n - i == 1 { left } else { left * one_in(n - i).parse::<f64>().unwrap() };
            prop_assert!((share * f64::from(u32::try_from(n).unwrap()) - 1.0).abs() < 1e-4, "endpoint {i} of {n} gets {share}");
            left -= share;
        }
    }

    #[test]
    fn from_anything_to_itself_is_no_change(hosts in prop::collection::vec(1u8..=250, 0..9)) {
        let chains = nat(&rules(&hosts), Family::V4);
        prop_assert!(change(&known(&chains), chains.clone()).is_empty());
    }
}
