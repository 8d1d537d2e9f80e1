//! Life cycle of rules in a pod: what is written, kept and removed.

use super::fake_node::until_gone;
use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed};
use super::traffic::{Flow, Outcome, Server, probe, probe_repeatedly};
use api::Family;
use proxy::backend::KnownRules;
use proxy::netns::Netns;
use proxy::netns::apply::Error;
use rules::{PodRules, Protocol};
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

for_every_backend![
    cleanup_removes_managed_rules_and_keeps_those_of_the_owner,
    cleanup_of_an_untouched_pod_creates_nothing,
    applying_twice_writes_nothing,
    deleted_service_loses_its_rules_and_routes_but_keeps_live_flows,
    new_proxy_adopts_existing_rules_without_a_gap,
    namespace_of_a_deleted_pod_is_released,
];

/// IPv4 VIP of the Service `web`.
const VIP: &str = "172.30.0.10";

fn web() -> SocketAddr {
    Service::new("web", 10).at(Family::V4, 80)
}

/// Rules for a Service with these endpoints and for one without endpoints.
fn wanted(client: &Pod, hosts: &[u8]) -> PodRules {
    rules(
        client,
        &[Service::new("web", 10).ready(hosts), Service::new("empty", 11)],
    )
}

/// Installs rules and routes of the pod's owner, in both variants, next to the managed jumps.
fn install_owner_rules(pod: &Pod) {
    for variant in ["nft", "legacy"] {
        pod.sh(&format!(
            "iptables-{variant} -t nat -N OWNERS; iptables-{variant} -t nat -A OUTPUT -p tcp --dport 15001 -j OWNERS
             iptables-{variant} -t nat -A OWNERS -d 192.0.2.1/32 -p tcp -j DNAT --to-destination 192.0.2.2:15006
             iptables-{variant} -A OUTPUT -d 192.0.2.3/32 -j DROP; ip6tables-{variant} -A FORWARD -d fd00:5::1/128 -j DROP"
        ));
    }
    pod.sh("ip route add 192.0.2.0/24 dev net1; ip -6 route add fd00:5::/64 dev net1");
}

fn cleanup_removes_managed_rules_and_keeps_those_of_the_owner(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    install_owner_rules(&client);
    let before = client.state();
    let with = wanted(&client, &[2, 3]);
    let held = KnownRules::Exactly(client.apply(kind, &KnownRules::Nothing, &with).rules);
    let owner_rules: Vec<&str> = before.lines().filter(|line| line.starts_with("-A")).collect();
    let during = client.state();
    assert!(
        (during.contains("MSP-") || during.contains("multus-proxy {")) && during.contains("proto 77"),
        "{during}"
    );
    assert!(owner_rules.iter().all(|rule| during.contains(rule)), "{during}");
    client.apply(kind, &held, &wanted(&client, &[3]));
    client.cleanup();
    assert_eq!(client.state(), before);
    client.cleanup();
    assert_eq!(client.state(), before);
}

fn cleanup_of_an_untouched_pod_creates_nothing(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let before = client.state();
    assert!(
        !client
            .apply(kind, &KnownRules::Unknown, &PodRules::default())
            .written
    );
    client.cleanup();
    let tables =
        client.sh("nft list tables; cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names");
    assert_eq!((tables.as_str(), client.state()), ("", before));
}

fn applying_twice_writes_nothing(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let rules = wanted(&client, &[2]);
    let first = client.apply(kind, &KnownRules::Nothing, &rules);
    assert!(first.written);
    // The kernel reports every change of a route or of nftables; restoring the same legacy table resets its counters.
    let seed = "iptables-legacy -t nat -S >/dev/null; iptables-legacy -t nat -A POSTROUTING -c 7 7 -m comment --comment seed";
    client.sh(seed);
    let monitors = [&["ip", "monitor", "route"][..], &["nft", "monitor"]].map(|monitor| {
        let mut command = client.command();
        command.args(monitor).stdout(Stdio::piped()).spawn().unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..3 {
        assert!(
            !client
                .apply(kind, &KnownRules::Exactly(first.rules.clone()), &rules)
                .written
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    for mut monitor in monitors {
        monitor.kill().unwrap();
        let mut events = String::new();
        monitor
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut events)
            .unwrap();
        monitor.wait().unwrap();
        assert_eq!(events, "");
    }
    assert!(
        client
            .sh("iptables-legacy-save -c -t nat")
            .contains("[7:7] -A POSTROUTING")
    );
}

fn deleted_service_loses_its_rules_and_routes_but_keeps_live_flows(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _server = Server::start(&testbed.pod(2));
    let applied = client.apply(kind, &KnownRules::Nothing, &wanted(&client, &[2]));
    let mut flow = client.run(|| Flow::open(web())).unwrap();
    client.apply(kind, &KnownRules::Exactly(applied.rules), &PodRules::default());
    let state = client.state();
    assert!(
        !state.contains("MSP-SVC-") && !state.contains("proto 77") && !state.contains(VIP),
        "{state}"
    );
    for _ in 0..3 {
        flow.echo(b"still there?");
    }
}

fn new_proxy_adopts_existing_rules_without_a_gap(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    client.apply(kind, &KnownRules::Nothing, &wanted(&client, &[2, 3]));
    // One endpoint was removed while no proxy was running.
    let desired = wanted(&client, &[3]);
    let fresh = {
        let other = testbed.pod(9);
        other.apply(kind, &KnownRules::Nothing, &wanted(&other, &[3]));
        // The chains differ only in the pod's own address.
        let other_chains = chains(&other).replace("10.1.0.9", "10.1.0.7");
        other_chains.replace("fd00:1::9", "fd00:1::7")
    };
    let stop = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            client.run(|| {
                let mut lost = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let outcome = probe(Protocol::Tcp, web());
                    if !matches!(outcome, Outcome::Answered(..)) {
                        lost.push(outcome);
                    }
                }
                lost
            })
        });
        for _ in 0..20 {
            client.apply(kind, &KnownRules::Unknown, &desired);
        }
        stop.store(true, Ordering::Relaxed);
        probing.join().unwrap()
    });
    assert_eq!(lost, []);
    assert_eq!(chains(&client), fresh, "adopted rules differ from fresh ones");
    assert_eq!(responding_hosts(&client), [3]);
}

/// Hosts that respond; all of them see the client's address on the network.
fn responding_hosts(client: &Pod) -> Vec<u8> {
    let outcomes = probe_repeatedly(client, Protocol::Tcp, web(), 20).into_keys();
    let host = |outcome: Outcome| {
        assert!(
            matches!(outcome, Outcome::Answered(_, seen) if seen == client.address()),
            "{outcome:?}"
        );
        outcome.host()
    };
    outcomes.map(host).collect()
}

fn chains(pod: &Pod) -> String {
    pod.state()
        .lines()
        .filter(|line| line.contains("MSP-"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn routes_lost_with_their_link_are_restored() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _server = Server::start(&testbed.pod(2));
    let kind = BackendKind::IptablesNft;
    let rules = wanted(&client, &[2]);
    let held = KnownRules::Exactly(client.apply(kind, &KnownRules::Nothing, &rules).rules);
    client.sh("ip link set net1 down; ip link set net1 up; ip addr replace fd00:1::7/64 dev net1 nodad");
    assert!(!client.sh("ip route show proto 77").contains(VIP));
    assert!(
        !client.apply(kind, &held, &rules).written,
        "only routes are written"
    );
    assert!(
        client
            .sh("ip route show proto 77")
            .contains("172.30.0.10 dev net1 scope link src 10.1.0.7")
    );
    assert!(
        client
            .sh("ip -6 route show proto 77")
            .contains("fd00:96::10 dev net1 src fd00:1::7")
    );
    assert_eq!(responding_hosts(&client), [2]);
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn route_of_the_pod_owner_is_kept_and_reported() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    client.sh("ip route add 172.30.0.10/32 dev eth0");
    let applied = client.apply(
        BackendKind::IptablesNft,
        &KnownRules::Nothing,
        &wanted(&client, &[2]),
    );
    assert_eq!(
        applied
            .foreign_routes
            .into_iter()
            .map(|vip| vip.to_string())
            .collect::<Vec<_>>(),
        [VIP]
    );
    assert!(client.sh("ip route show 172.30.0.10").contains("dev eth0"));
    assert!(client.sh("ip route show 172.30.0.11").contains("dev net1"));
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn vip_is_rejected_until_the_source_address_exists() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _server = Server::start(&testbed.pod(2));
    let kind = BackendKind::IptablesNft;
    client.sh("ip addr del 10.1.0.7/16 dev net1");
    let rules = wanted(&client, &[2]);
    let applied = client.apply(kind, &KnownRules::Nothing, &rules);
    assert_eq!(
        applied
            .absent
            .iter()
            .map(|source| source.address)
            .collect::<Vec<_>>(),
        [client.address()]
    );
    assert!(
        probe_repeatedly(&client, Protocol::Tcp, web(), 3)
            .keys()
            .all(Outcome::is_rejected)
    );
    client.sh("ip addr add 10.1.0.7/16 dev net1");
    assert_eq!(
        client
            .apply(kind, &KnownRules::Exactly(applied.rules), &rules)
            .absent,
        []
    );
    assert_eq!(responding_hosts(&client), [2]);
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn namespace_of_another_pod_is_not_written_into() {
    let mut testbed = Testbed::new();
    let (client, other) = (testbed.pod(7), testbed.pod(8));
    let before = other.state();
    let mistaken = Pod {
        netns: other.netns.clone(),
        ..client.clone()
    };
    let rejected = mistaken.try_apply(
        BackendKind::IptablesNft,
        &KnownRules::Nothing,
        &wanted(&client, &[2]),
    );
    assert!(matches!(rejected, Err(Error::NotThePod)), "{rejected:?}");
    assert_eq!(other.state(), before);
}

fn namespace_of_a_deleted_pod_is_released(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    client.apply(kind, &KnownRules::Nothing, &wanted(&client, &[2]));
    let node = testbed.node();
    let peer = || {
        Netns::open(format!("/run/netns/{node}").as_ref())
            .unwrap()
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
            .unwrap()
    };
    assert!(peer().contains("v7:"));
    let deleted = std::process::Command::new("ip")
        .args(["netns", "del", &client.netns])
        .status()
        .unwrap();
    assert!(deleted.success());
    until_gone(|| !peer().contains("v7:"));
}
