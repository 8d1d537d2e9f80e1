//! Properties of the nftables backend: its table, repair of a damaged table, and no redundant writes.

use super::echo_server::Server;
use super::matrix::BackendKind;
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed};
use super::traffic::{Flow, Outcome, probe_repeatedly};
use api::Family;
use proxy::backend::nftables::{Nftables, generation};
use proxy::backend::{Backend, KnownRules};
use rules::{PodRules, Protocol};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

fn web() -> Service {
    Service::new("web", 10)
}

fn sticky() -> Service {
    let mut sticky = Service::new("sticky", 11).ready(&[2, 3]);
    sticky.spec =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    sticky
}

fn wanted(client: &Pod, hosts: &[u8]) -> PodRules {
    rules(client, &[web().ready(hosts), sticky(), Service::new("empty", 12)])
}

/// Both tables with sorted lines, because the kernel lists elements in any order.
fn tables(pod: &Pod) -> String {
    let listed = pod.sh("nft list table ip multus-proxy; nft list table ip6 multus-proxy");
    let mut lines: Vec<&str> = listed
        .lines()
        .map(|line| {
            line.trim()
                .trim_start_matches("elements = { ")
                .trim_end_matches([',', ' ', '}'])
        })
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn responding_hosts(client: &Pod, family: Family) -> Vec<u8> {
    let outcomes = probe_repeatedly(client, Protocol::Tcp, web().at(family, 80), 30);
    outcomes.keys().map(Outcome::host).collect()
}

const EXPECTED_TABLE: &str = include_str!("nftables.expected");

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn nft_lists_the_documented_table() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    client.apply(
        BackendKind::Nftables,
        &KnownRules::Nothing,
        &wanted(&client, &[2, 3]),
    );
    assert_eq!(client.sh("nft -t list table ip multus-proxy"), EXPECTED_TABLE);
    let ipv6 = EXPECTED_TABLE
        .replace("ipv4_addr", "ipv6_addr")
        .replace("ip daddr", "ip6 daddr")
        .replace("ip saddr", "ip6 saddr")
        .replace("127.0.0.1:0", "[::1]:0")
        .replace("dnat ip ", "dnat ip6 ")
        .replace("table ip ", "table ip6 ");
    assert_eq!(client.sh("nft -t list table ip6 multus-proxy"), ipv6);
    let listed = client.sh("nft list ruleset");
    for element in [
        "172.30.0.10 . tcp . 80 . 0x00000001 : 10.1.0.3 . 8080",
        "172.30.0.12",
        "fd00:96::10 . udp . 53 . 0x00000000 : fd00:1::2 . 5353",
    ] {
        assert!(listed.contains(element), "{element} is not in {listed}");
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn restart_without_changes_writes_nothing() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let rules = wanted(&client, &[2, 3]);
    client.apply(BackendKind::Nftables, &KnownRules::Nothing, &rules);
    let dump = client.run(|| Nftables.dump()).unwrap();
    assert_eq!(dump, rules.kernel_state());
    let before = client.run(generation).unwrap();
    for _ in 0..2 {
        assert!(
            !client
                .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
                .written
        );
    }
    assert_eq!(client.run(generation).unwrap(), before);
    client.sh("nft add element ip multus-proxy vips { 192.0.2.1 }");
    assert_ne!(
        client.run(generation).unwrap(),
        before,
        "otherwise the generation proves nothing"
    );
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn damaged_table_is_repaired_by_the_next_resync() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let rules = wanted(&client, &[2, 3]);
    client.apply(BackendKind::Nftables, &KnownRules::Nothing, &rules);
    let intact = tables(&client);
    for damage in [
        "nft flush ruleset",
        "nft delete table ip multus-proxy",
        "nft flush chain ip multus-proxy dispatch",
        "nft flush chain ip multus-proxy lb-2",
        "nft insert rule ip multus-proxy reject-output drop",
        "nft flush chain ip6 multus-proxy output",
        "nft flush chain ip multus-proxy source",
        "nft delete element ip multus-proxy sources '{ 172.30.0.10 }'",
        "nft delete element ip multus-proxy sources '{ 172.30.0.10 }'; nft add element ip multus-proxy sources '{ 172.30.0.10 : 10.128.0.7 }'",
        "nft add element ip6 multus-proxy sources '{ fd00:96::99 : fd00:1::7 }'",
        "nft flush chain ip multus-proxy remember",
        "nft add chain ip multus-proxy mine",
        "nft add set ip multus-proxy mine '{ type ipv4_addr; }'",
        "nft add set ip multus-proxy svc-9 '{ type ipv4_addr; }'",
        "nft delete element ip multus-proxy svc-2 '{ 172.30.0.10 . tcp . 80 }'",
        "nft add element ip multus-proxy sticky-60s '{ 172.30.0.99 . tcp . 80 . 10.1.0.2 . 8080 }'",
        "nft delete element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x0 }'",
        "nft delete element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x1 }'; nft add element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x1 : 10.1.0.9 . 8080 }'",
        "nft delete element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x1 }'; nft add element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x1 : 10.1.0.2 . 8080 }'",
        "nft add element ip multus-proxy aff-60s '{ 172.30.0.11 . tcp . 80 . 10.1.0.7 : 10.1.0.9 . 8080 }'",
        "nft delete element ip multus-proxy sticky-60s '{ 172.30.0.11 . tcp . 80 . 10.1.0.3 . 8080 }'",
        "nft add element ip multus-proxy vips '{ 192.0.2.1 }'",
        "nft delete element ip multus-proxy vips '{ 172.30.0.12 }'",
    ] {
        client.sh(damage);
        assert_ne!(tables_if_present(&client), intact, "{damage}");
        assert!(
            client
                .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
                .written,
            "{damage}"
        );
        let dump = client.run(|| Nftables.dump()).unwrap();
        assert_eq!(dump, rules.kernel_state(), "{damage}");
        for family in Family::ALL {
            assert_eq!(responding_hosts(&client, family), [2, 3], "{damage}");
        }
    }
}

fn tables_if_present(pod: &Pod) -> String {
    let count = pod.sh("nft list tables | grep -c multus-proxy || true");
    if count.trim() == "2" {
        tables(pod)
    } else {
        String::new()
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn table_of_another_layout_version_is_replaced() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _server = Server::start(&testbed.pod(2));
    let rules = wanted(&client, &[2]);
    client.apply(BackendKind::Nftables, &KnownRules::Nothing, &rules);
    let intact = tables(&client);
    client.sh(
        "nft -f - <<'E'
delete table ip multus-proxy
table ip multus-proxy { comment \"multus-service layout 99\"; chain x { type nat hook output priority -101; dnat to 10.1.0.99; }; }
E",
    );
    assert!(
        client
            .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
            .written
    );
    assert_eq!(tables(&client), intact);
    assert_eq!(responding_hosts(&client, Family::V4), [2]);
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn change_rejected_by_the_kernel_is_retried_from_the_actual_state() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let mut held = client
        .apply(
            BackendKind::Nftables,
            &KnownRules::Nothing,
            &wanted(&client, &[2]),
        )
        .rules;
    // Changes by another process: the next apply starts from a wrong assumption.
    for (damage, hosts) in [
        (
            "nft delete element ip multus-proxy eps '{ 172.30.0.10 . tcp . 80 . 0x0 }'",
            &[3][..],
        ),
        ("nft flush ruleset", &[2, 3]),
        ("nft flush set ip multus-proxy vips", &[2]),
        ("nft flush ruleset", &[]),
        ("nft delete table ip6 multus-proxy", &[3]),
    ] {
        client.sh(damage);
        // A second VIP, so that the rejections change, too.
        let mut services = vec![web().ready(hosts), sticky(), Service::new("empty", 12)];
        services.extend((hosts.len() != 1).then(|| Service::new("more", 13).ready(&[2])));
        let rules = rules(&client, &services);
        let repaired = client.apply(BackendKind::Nftables, &KnownRules::Exactly(held), &rules);
        // Parts that failed on the unexpected state are reported and written by the next attempt, which reads everything.
        assert!(!repaired.is_exact, "{damage}: {repaired:?}");
        assert!(
            repaired.is_complete() || damage.contains("ip6"),
            "{damage}: {repaired:?}"
        );
        held = client
            .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
            .rules;
        assert!(
            !client
                .apply(BackendKind::Nftables, &KnownRules::Unknown, &rules)
                .written,
            "{damage}"
        );
        if hosts.is_empty() {
            let outcomes = probe_repeatedly(&client, Protocol::Tcp, web().at(Family::V4, 80), 3);
            assert!(
                outcomes.keys().all(Outcome::is_rejected),
                "{damage}: {outcomes:?}"
            );
        } else {
            assert_eq!(responding_hosts(&client, Family::V4), hosts, "{damage}");
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn tables_of_another_owner_are_kept() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    client.sh("nft add table ip multus-proxy-too; nft add table inet mine; nft add chain inet mine output '{ type filter hook output priority 0; }'; nft add rule inet mine output counter");
    let unmanaged = || client.sh("nft -s list table ip multus-proxy-too; nft -s list table inet mine");
    let before = unmanaged();
    let held = client
        .apply(
            BackendKind::Nftables,
            &KnownRules::Nothing,
            &wanted(&client, &[2]),
        )
        .rules;
    client.apply(
        BackendKind::Nftables,
        &KnownRules::Unknown,
        &wanted(&client, &[3]),
    );
    client.apply(
        BackendKind::Nftables,
        &KnownRules::Exactly(held),
        &PodRules::default(),
    );
    assert_eq!(unmanaged(), before);
    client.cleanup();
    assert_eq!(unmanaged(), before);
    assert!(!client.sh("nft list tables").contains("multus-proxy\n"));
}

/// The lookup of an existing port must succeed at every point of a change.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn endpoint_count_changes_without_a_failed_connection() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3, 4].map(|host| Server::start(&testbed.pod(host)));
    let at: SocketAddr = web().at(Family::V4, 80);
    let states: Vec<PodRules> = [&[2][..], &[2, 3, 4], &[4], &[2, 3], &[3, 4], &[2, 3, 4], &[3]]
        .map(|hosts| wanted(&client, hosts))
        .into();
    let mut held = client
        .apply(BackendKind::Nftables, &KnownRules::Nothing, &states[0])
        .rules;
    let outcomes = std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe_repeatedly(&client, Protocol::Tcp, at, 3000));
        let mut changes = 0;
        while !probing.is_finished() {
            for state in &states {
                held = client
                    .apply(BackendKind::Nftables, &KnownRules::Exactly(held.clone()), state)
                    .rules;
                changes += 1;
            }
        }
        assert!(changes >= 14, "only {changes} changes");
        probing.join().unwrap()
    });
    assert!(
        outcomes
            .keys()
            .all(|outcome| matches!(outcome, Outcome::Answered { .. })),
        "{outcomes:?}"
    );
}

/// One tenant cycles through values; another one does not change.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn unused_sets_and_chains_are_removed_without_disturbing_others() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let cycling = |seconds: u32| {
        let mut cycling = Service::new("cycling", 13).ready(&[2, 3]);
        cycling.spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        let hosts: Vec<u8> = (0..seconds % 97)
            .map(|n| 100 + u8::try_from(n).unwrap())
            .collect();
        rules(
            &client,
            &[
                web().ready(&[2, 3]),
                sticky(),
                cycling,
                Service::new("large", 14).ready(&hosts),
            ],
        )
    };
    let mut held = client
        .apply(BackendKind::Nftables, &KnownRules::Nothing, &cycling(1))
        .rules;
    let at = web().at(Family::V4, 80);
    let mut flow = client.run(|| Flow::open(at)).unwrap();
    client.run(|| Flow::open(sticky().at(Family::V4, 80))).unwrap();
    let has_affinity = || {
        client
            .sh("nft list map ip multus-proxy aff-60s")
            .contains("10.1.0.7")
    };
    assert!(has_affinity());
    let stop = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut outcomes = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                outcomes.extend(probe_repeatedly(&client, Protocol::Tcp, at, 10).into_keys());
            }
            outcomes
        });
        for seconds in 2..=500 {
            let rules = cycling(seconds);
            held = client
                .apply(BackendKind::Nftables, &KnownRules::Exactly(held.clone()), &rules)
                .rules;
        }
        stop.store(true, Ordering::Relaxed);
        probing.join().unwrap()
    });
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Answered(..))),
        "{outcomes:?}"
    );
    flow.echo(b"still there?");
    assert!(has_affinity(), "Services that did not change keep their clients");
    let listed = client.sh("nft -t list table ip multus-proxy");
    let (sets, chains) = (
        listed.matches("set ").count(),
        listed.matches("chain lb-").count(),
    );
    assert!(sets < 60 && chains < 60, "{sets} sets and {chains} chains");
    assert!(
        !client
            .apply(BackendKind::Nftables, &KnownRules::Unknown, &cycling(500))
            .written
    );
    // The last Service with affinity is deleted, and the shared chains with it.
    for count in 1..=120 {
        let hosts: Vec<u8> = (0..count).map(|n| 100 + n).collect();
        let rules = rules(
            &client,
            &[web().ready(&[2, 3]), Service::new("large", 14).ready(&hosts)],
        );
        held = client
            .apply(BackendKind::Nftables, &KnownRules::Exactly(held), &rules)
            .rules;
    }
    let listed = client.sh("nft -t list table ip multus-proxy");
    assert!(
        !listed.contains("remember") && !listed.contains("sticky"),
        "{listed}"
    );
    assert_eq!(client.run(|| Nftables.dump()).unwrap(), held.kernel_state());
}
