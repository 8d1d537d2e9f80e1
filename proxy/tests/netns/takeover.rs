//! Takeover between backends and from the archived multus-service proxy without a gap, and backend selection.

use super::echo_server::Server;
use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Service, rules};
use super::pod_churn::{cpu_time_and_child_faults, run_in_subprocess};
use super::testbed::{Pod, Testbed};
use super::traffic::{Flow, Outcome, probe};
use api::Family;
use proxy::args::BackendChoice;
use proxy::backend::detect::{choose, taking_over};
use proxy::backend::iptables::{Iptables, Variant};
use proxy::backend::nftables::Nftables;
use proxy::backend::{Backend, KnownRules};
use proxy::netns::apply::{Wanted, apply};
use rules::{PodRules, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

for_every_backend![legacy_proxy_rules_are_replaced_without_a_gap];

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn auto_selects_nftables_and_explicit_choices_are_respected() {
    for (choice, name) in [
        (BackendChoice::Auto, "nftables"),
        (BackendChoice::NfTables, "nftables"),
        (BackendChoice::IpTables, "iptables-nft"),
    ] {
        assert_eq!(choose(choice).unwrap().name(), name);
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn backend_switch_fails_no_connection() {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let service = Service::new("web", 10).ready(&[2, 3]);
    let rules = rules(&client, std::slice::from_ref(&service));
    let at = service.at(Family::V4, 80);
    let backends: [Arc<dyn Backend>; 3] = [
        Arc::new(Nftables),
        Arc::new(Iptables::new(Variant::Nft)),
        Arc::new(Iptables::new(Variant::Legacy)),
    ];
    let write = |backend: &Arc<dyn Backend>, held| {
        let backend = taking_over(Arc::clone(backend));
        client
            .run(|| apply(backend.as_ref(), &held, &desired_state(&client, &rules)))
            .unwrap();
    };
    write(&backends[0], KnownRules::Nothing);
    let mut long_lived = client.run(|| Flow::open(at)).unwrap();
    let stop = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            client.run(|| {
                let mut outcomes: BTreeMap<Outcome, u32> = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    *outcomes.entry(probe(Protocol::Tcp, at)).or_default() += 1;
                }
                outcomes
            })
        });
        // Each backend replaces each other one.
        for next in [1, 0, 2, 1, 2, 0] {
            write(&backends[next], KnownRules::Unknown);
            long_lived.echo(b"still there?");
            let left: Vec<_> = backends
                .iter()
                .map(|backend| client.run(|| backend.is_present()).unwrap())
                .collect();
            assert!(left[next], "{next}");
            // Legacy tables cannot be removed, only emptied.
            let rules = client.state();
            let (iptables, nftables) = (rules.contains("MSP-"), rules.contains("table ip multus-proxy"));
            assert_eq!((iptables, nftables), (next != 0, next == 0), "{next}: {rules}");
        }
        stop.store(true, Ordering::Relaxed);
        probing.join().unwrap()
    });
    assert!(
        outcomes
            .keys()
            .all(|outcome| matches!(outcome, Outcome::Answered { .. })),
        "{outcomes:?}"
    );
}

/// Installs rules as the archived multus-service proxy writes them, in either variant of iptables, for this ClusterIP and for a deleted
/// one.
fn install_legacy_proxy_rules(client: &Pod, variant: &str, vip: IpAddr) {
    client.sh(&format!(
        "iptables-{variant}-restore --noflush <<EOR
*nat
:MULTUS-SERVICES - [0:0]
:MULTUS-SVC-HEXNTD6JIC42P6W2 - [0:0]
:MULTUS-SEP-H4OFMGJN6F4YFTQQ - [0:0]
-I OUTPUT -m comment --comment \"multus service portals\" -j MULTUS-SERVICES
-A MULTUS-SEP-H4OFMGJN6F4YFTQQ -p tcp -m tcp -j DNAT --to-destination 10.1.0.2:8080
-A MULTUS-SVC-HEXNTD6JIC42P6W2 -m statistic --mode random --probability 1.0 -j MULTUS-SEP-H4OFMGJN6F4YFTQQ
-A MULTUS-SERVICES -d {vip}/32 -p tcp -m tcp --dport 80 -j MULTUS-SVC-HEXNTD6JIC42P6W2
-A MULTUS-SERVICES -d 172.30.99.99/32 -p tcp -m tcp --dport 80 -j MULTUS-SVC-HEXNTD6JIC42P6W2
COMMIT
EOR
for vip in {vip} 172.30.99.99; do ip route add $vip dev net1 proto kernel scope global src 10.1.0.7; done"
    ));
}

fn legacy_proxy_rules_are_replaced_without_a_gap(kind: BackendKind) {
    for variant in ["nft", "legacy"] {
        let mut testbed = Testbed::new();
        let client = testbed.pod(7);
        let _server = Server::start(&testbed.pod(2));
        let service = Service::new("web", 10).ready(&[2]);
        let rules = rules(&client, std::slice::from_ref(&service));
        let at = service.at(Family::V4, 80);
        install_legacy_proxy_rules(&client, variant, at.ip());
        let mut long_lived = client.run(|| Flow::open(at)).unwrap();
        let stop = AtomicBool::new(false);
        let lost = std::thread::scope(|scope| {
            let probing = scope.spawn(|| {
                client.run(|| {
                    let mut lost = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let outcome = probe(Protocol::Tcp, at);
                        if !matches!(outcome, Outcome::Answered(..)) {
                            lost.push(outcome);
                        }
                    }
                    lost
                })
            });
            let backend = taking_over(kind.backend().into());
            for _ in 0..2 {
                client
                    .run(|| {
                        apply(
                            backend.as_ref(),
                            &KnownRules::Unknown,
                            &desired_state(&client, &rules),
                        )
                    })
                    .unwrap();
                long_lived.echo(b"still there?");
            }
            stop.store(true, Ordering::Relaxed);
            probing.join().unwrap()
        });
        assert_eq!(lost, [], "{variant}");
        // The legacy proxy has no IPv6 support.
        let outcome = client.run(|| probe(Protocol::Tcp, service.at(Family::V6, 80)));
        assert_eq!(outcome.host(), 2, "{variant}");
        let state = client.state();
        assert!(
            !state.contains("MULTUS-")
                && !state.contains("172.30.99.99")
                && !state.contains("proto kernel scope global"),
            "{variant}: {state}"
        );
        assert!(
            state.contains("172.30.0.10 dev net1 proto 77"),
            "{variant}: {state}"
        );
    }
}

fn desired_state(client: &Pod, rules: &PodRules) -> Wanted {
    let addresses = client.status.iter().flat_map(|status| &status.addresses);
    Wanted {
        rules: rules.clone(),
        addresses: addresses.copied().collect(),
        foreign_routes: None,
    }
}

const SUBPROCESS: &str = "MSP_START_SUBPROCESS";

/// Runs in a process of its own, so that the programs it runs are the driver's. Does nothing unless started by the other test.
#[test]
#[ignore = "started by start_without_legacy_proxy_rules_runs_no_program"]
fn start_subprocess() {
    if std::env::var_os(SUBPROCESS).is_none() {
        return;
    }
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let pods = [7, 8, 9].map(|host| testbed.pod(host));
    let objects = pods.each_ref().map(|pod| {
        let object = object(pod);
        // The sandbox exists before the proxy starts, so another process may have written into it.
        runtime.set_sandbox(uid(&object), &pod.netns);
        object
    });
    // The pod's own rules are no reason to run a program either.
    pods[0].sh("iptables-nft -t nat -A OUTPUT -d 192.0.2.1 -j ACCEPT");
    let (_, before) = cpu_time_and_child_faults();
    let web = Service::new("web", 10).ready(&[2]);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web], &objects.each_ref());
    until("ready", || driver.is_ready());
    let (_, after) = cpu_time_and_child_faults();
    assert!(pods.iter().all(|pod| pod.state().contains("172.30.0.10")));
    assert_eq!(after, before, "a program was run");
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn start_without_legacy_proxy_rules_runs_no_program() {
    run_in_subprocess("takeover::start_subprocess", SUBPROCESS);
}
