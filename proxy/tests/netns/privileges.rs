//! What each capability of the DaemonSet is for: without it the work fails, and says so.
//!
//! The worker is this test's own program, started again without one capability.

use super::bed::{Bed, Pod, address};
use super::case::Kind;
use super::cluster::{Service, rules};
use api::network_status::NetworkStatus;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use proxy::args::BackendChoice;
use proxy::backend::KnownRules;
use proxy::backend::detect::choose;
use proxy::netns::Netns;
use proxy::netns::apply::{Applied, Error};
use rules::Family;
use std::path::Path;
use std::process::Command;

/// What the DaemonSet grants.
const GRANTED: [&str; 4] = ["net_admin", "net_broadcast", "net_raw", "sys_admin"];

/// Tells the worker which namespace to write into.
const NETNS: &str = "MSP_PRIVILEGES_NETNS";

/// Tells the chooser what to choose from.
const CHOICE: &str = "MSP_PRIVILEGES_CHOICE";

fn web() -> Service {
    Service::new("web", 10).ready(&[2])
}

/// Writes with each backend and says how it went. Does nothing unless the other test starts it.
#[test]
#[ignore = "started by each_capability_is_needed_and_its_lack_is_named"]
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
    println!("enter: {}", said(entered));
    for kind in Kind::ALL {
        let written = std::panic::catch_unwind(|| {
            client.try_apply(kind, &KnownRules::Unknown, &rules(&client, &[web()]))
        });
        println!(
            "{kind:?}: {}",
            written.map_or_else(|_| "cannot be entered".to_owned(), outcome)
        );
    }
    // As the driver does to be told of changes in all namespaces.
    let socket = Socket::new(NETLINK_ROUTE).unwrap();
    println!("listen: {}", said(socket.set_listen_all_namespaces(true)));
}

/// A kernel module that is missing fails the same trial; this kernel has them built in, so programs are taken away instead.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_backend_whose_programs_are_missing_is_named() {
    let tried = |backend: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "privileges::chooser", "--ignored", "--nocapture"])
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

/// Chooses and says what. Does nothing unless the other test starts it.
#[test]
#[ignore = "started by a_backend_whose_programs_are_missing_is_named"]
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

/// What an apply could not do.
fn outcome(applied: Result<Applied, Error>) -> String {
    match applied {
        Ok(applied) if !applied.is_complete() => {
            let failures = applied.failures.iter().map(ToString::to_string);
            failures.collect::<Vec<_>>().join("; ")
        }
        other => said(other.map(drop)),
    }
}

/// An error with its causes.
fn said<E: std::error::Error>(result: Result<(), E>) -> String {
    let Err(error) = result else {
        return "ok".to_owned();
    };
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How the worker went with the granted capabilities but for one.
fn without(capability: Option<&str>, netns: &str) -> String {
    let left = GRANTED.into_iter().filter(|granted| Some(*granted) != capability);
    let set = std::iter::once("-all").chain(left).collect::<Vec<_>>().join(",+");
    let output = Command::new("setpriv")
        .args([
            &format!("--bounding-set={set}"),
            &format!("--inh-caps={set}"),
            "--no-new-privs",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "privileges::worker", "--ignored", "--nocapture"])
        .env(NETNS, netns)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn each_capability_is_needed_and_its_lack_is_named() {
    let mut bed = Bed::new();
    let all = without(None, &bed.pod(7).netns);
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
    // Each in a pod of its own: where iptables-legacy has been, its tables have to be read with any backend.
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
        let said = without(Some(capability), &bed.pod(host).netns);
        for line in lines {
            assert!(
                said.contains(line),
                "without {capability}: {line:?} is not in {said}"
            );
        }
    }
}
