//! What the proxy weighs itself: its view of the cluster, and what it knows of each pod.

use crate::case::Kind;
use crate::report::Report;
use crate::world::World;
use std::process::Command;
use std::time::Duration;

const SERVICES: usize = 1000;
const PODS: u8 = 100;
const HOSTS: [u8; 10] = [201, 202, 203, 204, 205, 206, 207, 208, 209, 210];

/// Changes after the cold fill, of one Service after the other.
const CHANGES: usize = 50;

const BUDGET: usize = 25_000_000;

/// In a process of its own, that holds nothing but this.
pub(crate) fn measure(report: &mut Report) {
    report.table(
        &format!("**Memory** (RSS) of a process that serves {PODS} pods and {SERVICES} Services of {} endpoints with nftables, after {CHANGES} changes; clients of API server and container runtime, and its logs, are not in it.", HOSTS.len()),
        &["now", "at most", "budget"],
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--weigh")
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
    report.row([megabytes(now), megabytes(most), megabytes(BUDGET) + verdict]);
}

fn megabytes(bytes: usize) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// What that process does: prints its weights in KiB.
pub(crate) fn weigh() {
    let mut world = World::with_endpoints(Kind::Nftables, PODS, SERVICES, &HOSTS);
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
