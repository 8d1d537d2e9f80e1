//! A writer that is killed at any instant, also between two writes.

use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Flow, Outcome, Server, probe};
use api::Family;
use api::network_status::NetworkStatus;
use proxy::backend::KnownRules;
use rules::{PodRules, Protocol};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

for_every_backend![writer_killed_at_any_instant_loses_no_connection];

/// Namespace and backend of the child process.
const NETNS: &str = "MSP_CRASH_NETNS";
const KIND: &str = "MSP_CRASH_KIND";

fn web() -> Service {
    Service::new("web", 10)
}

fn wanted(client: &Pod, hosts: &[u8]) -> PodRules {
    rules(client, &[web().ready(hosts), Service::new("empty", 11)])
}

/// Body of the killed process: adopts, then writes one change after another. Does nothing unless started by the other test.
#[test]
#[ignore = "started by writer_killed_at_any_instant_loses_no_connection"]
fn writer() {
    let Ok(netns) = std::env::var(NETNS) else { return };
    let name = std::env::var(KIND).unwrap();
    let kind = BackendKind::ALL
        .into_iter()
        .find(|kind| format!("{kind:?}") == name)
        .unwrap();
    let status = |network: &str, interface: &str, number: u8| NetworkStatus {
        network: network.to_owned(),
        interface: interface.to_owned(),
        addresses: Family::ALL.map(|family| address(number, family, 7)).to_vec(),
    };
    let client = Pod {
        netns,
        host: 7,
        status: vec![status("web/macvlan1", "net1", 1)],
    };
    let mut held = KnownRules::Unknown;
    for round in 0..1000 {
        let hosts: &[u8] = if round % 2 == 0 { &[2, 3] } else { &[3] };
        held = KnownRules::Exactly(client.apply(kind, &held, &wanted(&client, hosts)).rules);
    }
}

fn writer_killed_at_any_instant_loses_no_connection(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let final_rules = wanted(&client, &[3]);
    client.apply(kind, &KnownRules::Nothing, &final_rules);
    let fresh = client.state();

    let vip = web().at(Family::V4, 80);
    let mut long_lived = client.run(|| Flow::open(vip)).unwrap();
    let stop = AtomicBool::new(false);
    let (answered, lost) = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            client.run(|| {
                let (mut answered, mut lost) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match probe(Protocol::Tcp, vip) {
                        Outcome::Answered(..) => answered += 1,
                        other => lost.push(other),
                    }
                }
                (answered, lost)
            })
        });
        for round in 0..25 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::writer", "--ignored", "--nocapture"])
                .env(NETNS, &client.netns)
                .env(KIND, format!("{kind:?}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // Delays from before the first write to well after it, in steps that do not align with a program's run time.
            std::thread::sleep(Duration::from_millis(7 + 13 * round % 97));
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "the writer ran until it was killed"
            );
            child.kill().unwrap();
            child.wait().unwrap();
            long_lived.echo(b"still there?");
        }
        stop.store(true, Ordering::Relaxed);
        probing.join().unwrap()
    });
    assert!(answered > 100, "only {answered} connections");
    assert_eq!(lost, []);
    // The last killed writer may have left a program running.
    std::thread::sleep(Duration::from_millis(500));
    client.apply(kind, &KnownRules::Unknown, &final_rules);
    assert_eq!(
        effective_rules(kind, &client.state()),
        effective_rules(kind, &fresh),
        "leftovers of the killed writers are repaired"
    );
    let again = client.apply(kind, &KnownRules::Unknown, &final_rules);
    assert!(!again.written, "the next proxy finds nothing to repair");
}

/// Returns the rules that decide where flows go. nftables keeps empty sets and the chains of every endpoint count seen so far, so only the
/// elements of its tables count.
pub(crate) fn effective_rules(kind: BackendKind, state: &str) -> Vec<String> {
    if kind != BackendKind::Nftables {
        return state.lines().map(str::to_owned).collect();
    }
    let of_a_vip = |line: &&str| line.contains("172.30.") || line.contains("fd00:96:");
    let element = |line: &str| {
        let line = line.trim().trim_start_matches("elements = { ");
        line.trim_end_matches([',', ' ', '}']).to_owned()
    };
    let mut elements: Vec<_> = state.lines().filter(of_a_vip).map(element).collect();
    elements.sort_unstable();
    elements
}
