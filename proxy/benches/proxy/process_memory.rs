//! What the proxy weighs itself: its view of the cluster, and what it knows of each pod.

use crate::fixture::World;
use crate::matrix::BackendKind;
use crate::report::Report;
use clap::ValueEnum;
use std::process::Command;
use std::time::Duration;

const SERVICES: usize = 1000;
const PODS: u8 = 100;
const HOSTS: [u8; 10] = [201, 202, 203, 204, 205, 206, 207, 208, 209, 210];

/// Changes after the cold fill, of one Service after the other.
const CHANGES: usize = 50;

const BUDGET: usize = 25_000_000;

/// Which arrival the Services came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// They were there.
    Start,
    /// Faster than they could be written: every pod holds another version of them, until the last.
    Burst,
}

/// In a process of its own, that holds nothing but this.
pub(crate) fn measure(report: &mut Report) {
    report.table(
        &format!("**Memory** (RSS) of a process that serves {PODS} pods and {SERVICES} Services of {} endpoints with nftables, after {CHANGES} changes; clients of API server and container runtime, and its logs, are not in it.", HOSTS.len()),
        &["the Services", "now", "at most", "budget"],
    );
    report.row(row("were there", Arrival::Start));
    report.row(row("came in a burst", Arrival::Burst));
}

fn row(came: &str, arrival: Arrival) -> [String; 4] {
    let arrival = arrival.to_possible_value().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--weigh", arrival.get_name()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut weights = said
        .split_whitespace()
        .map(|weight| weight.parse::<usize>().unwrap() << 10);
    let (now, most) = (weights.next().unwrap(), weights.next().unwrap());
    let verdict = if now <= BUDGET { "" } else { ", **missed**" };
    let budget = megabytes(BUDGET) + verdict;
    [came.to_owned(), megabytes(now), megabytes(most), budget]
}

fn megabytes(bytes: usize) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Each pod is written into once while the Services come.
fn burst() -> World {
    let mut world = World::with_endpoints(BackendKind::Nftables, PODS, 0, &HOSTS);
    let each = SERVICES / usize::from(PODS);
    for n in 0..SERVICES {
        world.create_service(n, &HOSTS);
        if n.is_multiple_of(each) {
            world.sync_one(n / each);
        }
    }
    world
}

/// What that process does: prints its weights in KiB.
pub(crate) fn weigh(arrival: Arrival) {
    let mut world = match arrival {
        Arrival::Start => World::with_endpoints(BackendKind::Nftables, PODS, SERVICES, &HOSTS),
        Arrival::Burst => burst(),
    };
    world.sync();
    for n in 0..CHANGES {
        world.set_endpoints(n, &HOSTS[1..]);
        world.sync();
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let weight = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    println!("{} {}", weight("VmRSS:"), weight("VmHWM:"));
}
