//! Capabilities of the DaemonSet: without any one of them an operation fails with an error that names it.
//!
//! The worker is this test binary, started without one capability.

use super::matrix::BackendKind;
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed, address};
use api::Family;
use api::network_status::NetworkStatus;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use proxy::args::BackendChoice;
use proxy::backend::KnownRules;
use proxy::backend::detect::choose;
use proxy::netns::Netns;
use proxy::netns::apply::{Applied, Error};
use std::path::Path;
use std::process::Command;

/// Capabilities granted by the DaemonSet.
const GRANTED: [&str; 4] = ["net_admin", "net_broadcast", "net_raw", "sys_admin"];

/// Namespace that the worker writes into.
const NETNS: &str = "MSP_CAPABILITIES_NETNS";

/// Backend choice of the chooser.
const CHOICE: &str = "MSP_CAPABILITIES_CHOICE";

fn web() -> Service {
    Service::new("web", 10).ready(&[2])
}

/// Applies with each backend and prints the result. Does nothing unless started by the other test.
#[test]
#[ignore = "started by each_capability_is_required_and_its_absence_is_reported"]
fn worker() {
    let Ok(netns) = std::env::var(NETNS) else { return };
    let host = netns.rsplit_once('p').unwrap().1.parse().unwrap();
    let client = Pod {
        status: vec![NetworkStatus {
            network: "web/macvlan1".to_owned(),
            interface: "net1".to_owned(),
            addresses: Family::ALL.map(|family| address(1, family, host)).to_vec(),
        }],
        host,
        netns,
    };
    let chosen = choose(BackendChoice::Auto).map(|backend| backend.name());
    println!(
        "choice: {}",
        chosen.map_or_else(|error| error.to_string(), str::to_owned)
    );
    let path = format!("/run/netns/{}", client.netns);
    let entered = Netns::open(Path::new(&path)).unwrap().run(|| ());
    println!("enter: {}", describe(entered));
    for kind in BackendKind::ALL {
        let written = std::panic::catch_unwind(|| {
            client.try_apply(kind, &KnownRules::Unknown, &rules(&client, &[web()]))
        });
        println!(
            "{kind:?}: {}",
            written.map_or_else(|_| "cannot be entered".to_owned(), outcome)
        );
    }
    // As the driver does to receive notifications from all namespaces.
    let socket = Socket::new(NETLINK_ROUTE).unwrap();
    println!("listen: {}", describe(socket.set_listen_all_namespaces(true)));
}

/// A missing kernel module fails the same trial. This kernel has the modules built in, so the programs are removed instead.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn backend_with_missing_programs_is_named() {
    let tried = |backend: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "capabilities::chooser", "--ignored", "--nocapture"])
            .env("PATH", "/nonexistent")
            .env(CHOICE, backend)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let none = tried("IPTables");
    for words in [
        "no supported backend on this node",
        "iptables-nft: failed to run \"iptables-nft-restore\"; is it in the image?",
        "iptables-legacy: failed to run",
    ] {
        assert!(none.contains(words), "{words:?} is not in {none}");
    }
    assert!(tried("Auto").contains("choice: nftables"));
}

/// Selects a backend and prints it. Does nothing unless started by the other test.
#[test]
#[ignore = "started by backend_with_missing_programs_is_named"]
fn chooser() {
    let Ok(backend) = std::env::var(CHOICE) else {
        return;
    };
    let backend = <BackendChoice as clap::ValueEnum>::from_str(&backend, true).unwrap();
    let chosen = choose(backend).map(|backend| backend.name());
    println!(
        "choice: {}",
        chosen.map_or_else(|error| error.to_string(), str::to_owned)
    );
}

/// Formats the failures of an apply.
fn outcome(applied: Result<Applied, Error>) -> String {
    match applied {
        Ok(applied) if !applied.is_complete() => {
            let failures = applied.failures.iter().map(ToString::to_string);
            failures.collect::<Vec<_>>().join("; ")
        }
        other => describe(other.map(drop)),
    }
}

/// Formats an error with its causes.
fn describe<E: std::error::Error>(result: Result<(), E>) -> String {
    let Err(error) = result else {
        return "ok".to_owned();
    };
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns the worker's output with all granted capabilities except one.
fn run_without(capability: Option<&str>, netns: &str) -> String {
    let left = GRANTED.into_iter().filter(|granted| Some(*granted) != capability);
    let set = std::iter::once("-all").chain(left).collect::<Vec<_>>().join(",+");
    let output = Command::new("setpriv")
        .args([
            &format!("--bounding-set={set}"),
            &format!("--inh-caps={set}"),
            "--no-new-privs",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "capabilities::worker", "--ignored", "--nocapture"])
        .env(NETNS, netns)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn each_capability_is_required_and_its_absence_is_reported() {
    let mut testbed = Testbed::new();
    let all = run_without(None, &testbed.pod(7).netns);
    for line in [
        "choice: nftables",
        "enter: ok",
        "Nftables: ok",
        "IptablesNft: ok",
        "IptablesLegacy: ok",
        "listen: ok",
    ] {
        assert!(all.contains(line), "{line:?} is not in {all}");
    }
    // Each case uses a new pod: once iptables-legacy has created its tables, every backend has to read them.
    for (host, (capability, lines)) in (8..).zip([
        (
            "sys_admin",
            &[
                "choice: no supported backend on this node",
                "the proxy needs CAP_SYS_ADMIN and CAP_NET_ADMIN",
                "enter: failed to enter the network namespace: Operation not permitted",
            ][..],
        ),
        (
            "net_admin",
            &[
                "choice: no supported backend on this node",
                "Nftables: the kernel rejected the request to",
                "Operation not permitted",
            ],
        ),
        (
            "net_raw",
            &[
                "choice: nftables",
                "Nftables: ok",
                "IptablesLegacy: ClusterIPs 172.30.0.10 (Service web/web) are neither served nor rejected: iptables-legacy",
            ],
        ),
        (
            "net_broadcast",
            &[
                "choice: nftables",
                "Nftables: ok",
                "listen: Operation not permitted",
            ],
        ),
    ]) {
        let stdout = run_without(Some(capability), &testbed.pod(host).netns);
        for line in lines {
            assert!(
                stdout.contains(line),
                "without {capability}: {line:?} is not in {stdout}"
            );
        }
    }
}
