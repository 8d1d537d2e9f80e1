//! Rules of other owners in a pod's namespace, and malformed objects, do not affect valid Services.

use super::fixture::Fixture;
use super::matrix::{BackendKind, Case, for_every_backend, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::testbed::Pod;
use api::Family;
use rules::Protocol::{Tcp, Udp};
use serde_json::json;

for_every_backend_and_family![malformed_object_does_not_affect_others];
for_every_backend![
    unmanaged_rules_survive_every_operation,
    ten_thousand_services_in_one_namespace_work,
];

/// Installs rules of a pod's owner: a firewall, a sidecar, multi-networkpolicy, and plain nft tables; in both iptables variants.
fn install_unmanaged_rules(pod: &Pod) {
    for variant in ["nft", "legacy"] {
        for (family, host) in [("", "192.0.2.1"), ("6", "fd00:5::1")] {
            let iptables = format!("ip{family}tables-{variant}");
            pod.sh(&format!(
                "{iptables} -t nat -N ISTIO_OUTPUT; {iptables} -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT
                 {iptables} -t nat -A ISTIO_OUTPUT -d {host} -p tcp -j REDIRECT --to-ports 15001
                 {iptables} -t nat -A PREROUTING -d {host} -p tcp --dport 15002 -j RETURN
                 {iptables} -N MULTI-EGRESS; {iptables} -A OUTPUT -o net1 -j MULTI-EGRESS
                 {iptables} -A MULTI-EGRESS -d {host} -j DROP
                 {iptables} -t mangle -A OUTPUT -d {host} -j MARK --set-mark 7"
            ));
        }
    }
    pod.sh(
        "nft 'table inet multi_networkpolicy { chain egress { type filter hook output priority 0; ip daddr 192.0.2.1 drop; }; }
              table ip owner { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain nat { type nat hook output priority -100; tcp dport 80 ip daddr @s redirect to :9; }; }'",
    );
    pod.sh("ip route add 192.0.2.0/24 dev net1; ip -6 route add fd00:5::/64 dev net1");
}

/// Unmanaged rules, in order, with their tables and chains.
fn unmanaged_rules(pod: &Pod) -> Vec<String> {
    let nft = pod.sh("nft list table inet multi_networkpolicy; nft list table ip owner");
    let all = format!("{}{nft}", pod.state());
    let has_managed_mark = |line: &str| {
        ["MSP-", "proto 77", "172.30.", "fd00:96:"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    let mut in_managed_table = false;
    all.lines()
        .filter(|line| {
            let starts = ["table ip multus-proxy {", "table ip6 multus-proxy {"].contains(line);
            let is_managed_line = in_managed_table || starts;
            in_managed_table = is_managed_line && *line != "}";
            !is_managed_line && !has_managed_mark(line)
        })
        .map(str::to_owned)
        .collect()
}

fn unmanaged_rules_survive_every_operation(kind: BackendKind) {
    let case = Case {
        kind,
        family: Family::V4,
    };
    let mut fixture = Fixture::new(case, &[2]);
    install_unmanaged_rules(&fixture.client);
    let before = unmanaged_rules(&fixture.client);
    assert!(before.len() > 30, "{before:?}");
    let (web, other) = (Service::new("web", 10).ready(&[2]), Service::new("other", 11));
    for services in [
        &[&web][..],
        &[&web, &other],
        &[&web.clone().ready(&[2, 3]), &other],
        &[&web.clone().ready(&[]), &other],
        &[&other],
        &[],
        &[&web],
    ] {
        fixture.sync_to(services);
        assert_eq!(unmanaged_rules(&fixture.client), before);
    }
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
    // A new proxy adopts existing rules; the last one cleans up.
    fixture.forget_known_rules();
    fixture.sync_to(&[&other]);
    assert_eq!(unmanaged_rules(&fixture.client), before);
    fixture.client.cleanup();
    assert_eq!(unmanaged_rules(&fixture.client), before);
}

fn malformed_object_does_not_affect_others(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    let alone = super::objects::rules(&fixture.client, std::slice::from_ref(&web));
    let invalid = |name: &str, spec| Service {
        spec,
        ..Service::new(name, 20).ready(&[2])
    };
    let mut garbage = Service::new("garbage", 21).ready(&[2]);
    garbage.endpoints[0].object["conditions"] = json!({"ready": false});
    let malformed = [
        invalid("vip", json!({"clusterIPs": ["172.30.0"]})),
        invalid("port", json!({"ports": [{"port": 70000}]})),
        invalid("protocol", json!({"ports": [{"port": 80, "protocol": "QUIC"}]})),
        invalid(
            "name",
            json!({"ports": [{"port": 80, "name": "a\" -j DROP\nCOMMIT"}]}),
        ),
        invalid(
            "external",
            json!({"type": "ExternalName", "externalName": "example.org"}),
        ),
        // Uses the ClusterIP of another Service.
        Service::new("zzz-thief", 10).ready(&[3]),
    ];
    fixture.services = [vec![web.clone()], malformed.to_vec()].concat();
    let plan = super::objects::plan(&fixture.client, &fixture.services);
    assert_eq!(plan.rules, alone);
    assert!(plan.unserved.len() >= malformed.len(), "{:?}", plan.unserved);
    fixture.sync();
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
    assert_eq!(fixture.probe(Udp, fixture.at(&web, 53)).host(), 2);
    fixture.sync_to(&[&web, &garbage]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
    assert!(fixture.probe(Tcp, fixture.at(&garbage, 80)).is_rejected());
}

fn ten_thousand_services_in_one_namespace_work(kind: BackendKind) {
    let case = Case {
        kind,
        family: Family::V4,
    };
    // iptables-nft needs half a minute to load 10,000 Services; see docs/reference/benchmarks.md.
    let count = if kind == BackendKind::IptablesNft {
        1_000
    } else {
        10_000
    };
    let mut fixture = Fixture::new(case, &[2, 3]);
    let service = |n: u16| {
        let mut service = Service {
            address: Some((n / 250 + 1, n % 250)),
            ports: vec![(Tcp, 80, 8080)],
            ..Service::new(&format!("svc-{n:05}"), 0).ready(&[2])
        };
        service.spec = json!({"clusterIPs": [service.vip(Family::V4)]});
        service
    };
    fixture.services = (0..count).map(service).collect();
    fixture.sync();
    let of = |fixture: &Fixture, n: usize| fixture.probe(Tcp, fixture.at(&fixture.services[n], 80));
    let last = fixture.services.len() - 1;
    for n in [0, 1, last / 2, last - 1, last] {
        assert_eq!(of(&fixture, n).host(), 2);
    }
    fixture.services[last].endpoints = ready(&[3]);
    fixture.services[0].endpoints.clear();
    fixture.services.remove(1);
    fixture.sync();
    assert_eq!(of(&fixture, last - 1).host(), 3);
    assert!(of(&fixture, 0).is_rejected());
    assert_eq!(of(&fixture, 1).host(), 2);
}
