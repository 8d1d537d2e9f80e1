//! Session affinity: a client stays with its endpoint.

use super::fake_node::until;
use super::fixture::Fixture;
use super::matrix::{BackendKind, Case, for_every_backend, for_every_backend_and_family};
use super::objects::Service;
use super::traffic::start_connect;
use api::Family;
use proxy::args::BackendChoice;
use proxy::backend::detect::choose;
use rules::Protocol::{Tcp, Udp};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

for_every_backend_and_family![
    client_stays_with_its_endpoint_until_the_affinity_timeout,
    client_of_a_removed_endpoint_moves_to_another_and_stays_there,
    affinity_can_be_enabled_and_disabled_while_flows_run,
    retransmitted_syn_does_not_renew_affinity_to_a_removed_endpoint,
    each_new_flow_renews_the_affinity_timeout,
];

for_every_backend![node_without_affinity_support_balances_clients];

fn sticky(hosts: &[u8], seconds: u32) -> Service {
    let mut service = Service::new("sticky", 10).ready(hosts);
    service.spec = json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    });
    service
}

fn client_stays_with_its_endpoint_until_the_affinity_timeout(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let service = sticky(&[2, 3, 4], 2);
    fixture.sync_to(&[&service]);
    let (tcp, udp) = (fixture.at(&service, 80), fixture.at(&service, 53));
    for (protocol, at) in [(Tcp, tcp), (Udp, udp)] {
        assert_eq!(fixture.hosts(protocol, at).len(), 1, "{protocol}");
    }
    // The endpoint is selected again each time: ten equal selections out of three have a probability of 1 in 20,000.
    let mut hosts_used = fixture.hosts(Tcp, tcp);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(2200));
        hosts_used.push(fixture.probe(Tcp, tcp).host());
        hosts_used.sort_unstable();
        hosts_used.dedup();
        if hosts_used.len() > 1 {
            return;
        }
    }
    panic!("the same hosts after ten timeouts: {hosts_used:?}");
}

fn client_of_a_removed_endpoint_moves_to_another_and_stays_there(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let mut left = vec![2, 3, 4];
    let service = sticky(&left, 600);
    fixture.sync_to(&[&service]);
    let at = fixture.at(&service, 80);
    while left.len() > 1 {
        let [host] = fixture.hosts(Tcp, at)[..] else {
            panic!("several hosts respond to one client");
        };
        // Removing an endpoint that the client does not use does not affect the client.
        let mut fewer = left.clone();
        fewer.remove(usize::from(left[0] == host));
        fixture.sync_to(&[&sticky(&fewer, 600)]);
        assert_eq!(fixture.hosts(Tcp, at), [host]);
        left.retain(|other| *other != host);
        fixture.sync_to(&[&sticky(&left, 600)]);
        let now = fixture.hosts(Tcp, at);
        assert!(now.len() == 1 && now[0] != host, "{now:?} after {host} went");
        // An endpoint that returns does not take its former client back.
        fixture.sync_to(&[&sticky(&[&left[..], &[host][..]].concat(), 600)]);
        assert_eq!(fixture.hosts(Tcp, at), now);
        fixture.sync_to(&[&sticky(&left, 600)]);
    }
}

fn retransmitted_syn_does_not_renew_affinity_to_a_removed_endpoint(case: Case) {
    let mut fixture = Fixture::new(case, &[3]);
    let silent = fixture.testbed.pod(2);
    silent.sh("nft add table inet silent; nft add chain inet silent input '{ type filter hook input priority 0; }'; nft add rule inet silent input tcp dport 8080 counter drop");
    let received_syns = || {
        let listed = silent.sh("nft list chain inet silent input");
        let words: Vec<&str> = listed.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse::<u32>().unwrap()
    };
    fixture.sync_to(&[&sticky(&[2], 600)]);
    let at = fixture.at(&sticky(&[2], 600), 80);
    let hanging = fixture.client.run(|| start_connect(at));
    until("the removed endpoint received a SYN", || received_syns() > 0);
    fixture.sync_to(&[&sticky(&[3], 600)]);
    let before = received_syns();
    // The kernel retransmits the SYN after a second, then at growing intervals.
    until("the SYN was retransmitted", || received_syns() > before);
    assert_eq!(fixture.hosts(Tcp, at), [3]);
    drop(hanging);
}

/// If flows did not renew the timeout, the client would stay over three timeouts only by chance.
fn each_new_flow_renews_the_affinity_timeout(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let service = sticky(&[2, 3, 4], 2);
    fixture.sync_to(&[&service]);
    let at = fixture.at(&service, 80);
    let (mut hosts, mut last) = (BTreeSet::new(), Instant::now());
    let mut began = last;
    while began.elapsed() < Duration::from_secs(6) {
        let host = fixture.probe(Tcp, at).host();
        // A slow machine invalidates the measurement, so it starts again.
        if last.elapsed() > Duration::from_millis(1500) {
            (hosts, began) = (BTreeSet::new(), Instant::now());
        }
        last = Instant::now();
        hosts.insert(host);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(hosts.len(), 1, "{hosts:?}");
}

fn affinity_can_be_enabled_and_disabled_while_flows_run(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let plain = Service::new("sticky", 10).ready(&[2, 3, 4]);
    let at = fixture.at(&plain, 80);
    for _ in 0..2 {
        fixture.sync_to(&[&plain]);
        assert_eq!(fixture.hosts(Tcp, at), [2, 3, 4]);
        fixture.sync_to(&[&sticky(&[2, 3, 4], 600)]);
        let with = fixture.hosts(Tcp, at);
        assert_eq!(with.len(), 1);
        // Changing the timeout may reset affinity, but may not spread the client over several endpoints.
        fixture.sync_to(&[&sticky(&[2, 3, 4], 60)]);
        assert_eq!(fixture.hosts(Tcp, at).len(), 1);
    }
}

fn node_without_affinity_support_balances_clients(kind: BackendKind) {
    let family = Family::V4;
    let mut fixture = Fixture::new(Case { kind, family }, &[2, 3, 4]);
    fixture.settings.lacks_affinity = true;
    let service = sticky(&[2, 3, 4], 600);
    fixture.sync_to(&[&service]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&service, 80)), [2, 3, 4]);
    assert!(!fixture.client.state().contains("recent"));
}

/// Set where the iptables programs cannot find the match, as on a kernel without it.
const WITHOUT_RECENT: (&str, &str) = ("XTABLES_LIBDIR", "MSP_TEST_WITHOUT_RECENT");

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn missing_recent_match_disables_affinity_but_not_the_backend() {
    if std::env::var_os(WITHOUT_RECENT.1).is_some() {
        let backend = choose(BackendChoice::IpTables).unwrap();
        assert_eq!(
            (backend.name(), backend.supports_affinity()),
            ("iptables-nft", false)
        );
        return;
    }
    assert!(choose(BackendChoice::IpTables).unwrap().supports_affinity());
    let found = Command::new("find")
        .args(["/usr/lib", "-name", "libxt_recent.so"])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let libraries = Path::new(found.lines().next().unwrap()).parent().unwrap();
    let without_recent = tempfile::tempdir().unwrap();
    for library in std::fs::read_dir(libraries).unwrap() {
        let library = library.unwrap();
        if library.file_name() != "libxt_recent.so" {
            symlink(library.path(), without_recent.path().join(library.file_name())).unwrap();
        }
    }
    // Runs in a child process, because the environment is shared by all threads.
    let name = "affinity::missing_recent_match_disables_affinity_but_not_the_backend";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name])
        .env(WITHOUT_RECENT.0, without_recent.path())
        .env(WITHOUT_RECENT.1, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}
