//! Session affinity: a client stays with its endpoint.

use super::fake_node::until;
use super::fixture::Scene;
use super::matrix::{Case, Kind, for_every_backend, for_every_backend_and_family};
use super::objects::Service;
use super::traffic::begin_to_connect;
use proxy::args::BackendChoice;
use proxy::backend::choice::choose;
use rules::Family;
use rules::Protocol::{Tcp, Udp};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

for_every_backend_and_family![
    a_client_stays_with_its_endpoint_until_it_was_silent_for_the_timeout,
    a_client_whose_endpoint_went_gets_another_and_stays_there,
    affinity_is_switched_on_and_off_while_flows_run,
    a_client_that_asks_a_removed_endpoint_again_and_again_is_not_remembered_there,
    every_new_flow_renews_the_timeout,
];

for_every_backend![a_node_that_cannot_keep_clients_balances_them];

fn sticky(hosts: &[u8], seconds: u32) -> Service {
    let mut service = Service::new("sticky", 10).ready(hosts);
    service.spec = json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    });
    service
}

fn a_client_stays_with_its_endpoint_until_it_was_silent_for_the_timeout(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let service = sticky(&[2, 3, 4], 2);
    scene.sync_to(&[&service]);
    let (tcp, udp) = (scene.at(&service, 80), scene.at(&service, 53));
    for (protocol, at) in [(Tcp, tcp), (Udp, udp)] {
        assert_eq!(scene.hosts(protocol, at).len(), 1, "{protocol}");
    }
    // Balanced anew each time: ten times the same of three is a matter of 1 in 20,000.
    let mut met = scene.hosts(Tcp, tcp);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(2200));
        met.push(scene.ask(Tcp, tcp).host());
        met.sort_unstable();
        met.dedup();
        if met.len() > 1 {
            return;
        }
    }
    panic!("after ten timeouts still with {met:?}");
}

fn a_client_whose_endpoint_went_gets_another_and_stays_there(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let mut left = vec![2, 3, 4];
    let service = sticky(&left, 600);
    scene.sync_to(&[&service]);
    let at = scene.at(&service, 80);
    while left.len() > 1 {
        let [host] = scene.hosts(Tcp, at)[..] else {
            panic!("several hosts answer one client");
        };
        // One that the client is not with makes no difference to it.
        let mut fewer = left.clone();
        fewer.remove(usize::from(left[0] == host));
        scene.sync_to(&[&sticky(&fewer, 600)]);
        assert_eq!(scene.hosts(Tcp, at), [host]);
        left.retain(|other| *other != host);
        scene.sync_to(&[&sticky(&left, 600)]);
        let now = scene.hosts(Tcp, at);
        assert!(now.len() == 1 && now[0] != host, "{now:?} after {host} went");
        // What comes back does not take it along.
        scene.sync_to(&[&sticky(&[&left[..], &[host][..]].concat(), 600)]);
        assert_eq!(scene.hosts(Tcp, at), now);
        scene.sync_to(&[&sticky(&left, 600)]);
    }
}

fn a_client_that_asks_a_removed_endpoint_again_and_again_is_not_remembered_there(case: Case) {
    let mut scene = Scene::new(case, &[3]);
    let silent = scene.bed.pod(2);
    silent.sh("nft add table inet silent; nft add chain inet silent input '{ type filter hook input priority 0; }'; nft add rule inet silent input tcp dport 8080 counter drop");
    let asked = || {
        let listed = silent.sh("nft list chain inet silent input");
        let words: Vec<&str> = listed.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse::<u32>().unwrap()
    };
    scene.sync_to(&[&sticky(&[2], 600)]);
    let at = scene.at(&sticky(&[2], 600), 80);
    let hanging = scene.client.run(|| begin_to_connect(at));
    until("the removed endpoint is asked", || asked() > 0);
    scene.sync_to(&[&sticky(&[3], 600)]);
    let before = asked();
    // The kernel sends the question again after a second, and then less and less often.
    until("it is asked again", || asked() > before);
    assert_eq!(scene.hosts(Tcp, at), [3]);
    drop(hanging);
}

/// Renewed, or three timeouts pass and the client stays by chance.
fn every_new_flow_renews_the_timeout(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let service = sticky(&[2, 3, 4], 2);
    scene.sync_to(&[&service]);
    let at = scene.at(&service, 80);
    let (mut hosts, mut last) = (BTreeSet::new(), Instant::now());
    let mut began = last;
    while began.elapsed() < Duration::from_secs(6) {
        let host = scene.ask(Tcp, at).host();
        // A machine that was too slow proves nothing.
        if last.elapsed() > Duration::from_millis(1500) {
            (hosts, began) = (BTreeSet::new(), Instant::now());
        }
        last = Instant::now();
        hosts.insert(host);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(hosts.len(), 1, "{hosts:?}");
}

fn affinity_is_switched_on_and_off_while_flows_run(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let plain = Service::new("sticky", 10).ready(&[2, 3, 4]);
    let at = scene.at(&plain, 80);
    for _ in 0..2 {
        scene.sync_to(&[&plain]);
        assert_eq!(scene.hosts(Tcp, at), [2, 3, 4]);
        scene.sync_to(&[&sticky(&[2, 3, 4], 600)]);
        let with = scene.hosts(Tcp, at);
        assert_eq!(with.len(), 1);
        // Another timeout is no reason to forget; neither is it one to mix.
        scene.sync_to(&[&sticky(&[2, 3, 4], 60)]);
        assert_eq!(scene.hosts(Tcp, at).len(), 1);
    }
}

fn a_node_that_cannot_keep_clients_balances_them(kind: Kind) {
    let family = Family::V4;
    let mut scene = Scene::new(Case { kind, family }, &[2, 3, 4]);
    scene.settings.lacks_affinity = true;
    let service = sticky(&[2, 3, 4], 600);
    scene.sync_to(&[&service]);
    assert_eq!(scene.hosts(Tcp, scene.at(&service, 80)), [2, 3, 4]);
    assert!(!scene.client.state().contains("recent"));
}

/// Set where the programs of iptables cannot find the match, as where the kernel does not have it.
const WITHOUT_RECENT: (&str, &str) = ("XTABLES_LIBDIR", "MSP_TEST_WITHOUT_RECENT");

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn the_lack_of_one_match_costs_affinity_and_not_the_backend() {
    if std::env::var_os(WITHOUT_RECENT.1).is_some() {
        let backend = choose(BackendChoice::IpTables).unwrap();
        assert_eq!(
            (backend.name(), backend.keeps_affinity()),
            ("iptables-nft", false)
        );
        return;
    }
    assert!(choose(BackendChoice::IpTables).unwrap().keeps_affinity());
    let found = Command::new("find")
        .args(["/usr/lib", "-name", "libxt_recent.so"])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let libraries = Path::new(found.lines().next().unwrap()).parent().unwrap();
    let others = tempfile::tempdir().unwrap();
    for library in std::fs::read_dir(libraries).unwrap() {
        let library = library.unwrap();
        if library.file_name() != "libxt_recent.so" {
            symlink(library.path(), others.path().join(library.file_name())).unwrap();
        }
    }
    // Another process, for the environment is everybody's.
    let name = "affinity::the_lack_of_one_match_costs_affinity_and_not_the_backend";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name])
        .env(WITHOUT_RECENT.0, others.path())
        .env(WITHOUT_RECENT.1, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
