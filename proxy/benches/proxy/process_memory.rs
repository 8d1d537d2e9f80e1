//! Memory of the proxy process: its view of the cluster and its state of each pod.

use crate::fixture::Fixture;
use crate::matrix::BackendKind;
use crate::report::Report;
use clap::ValueEnum;
use std::process::Command;
use std::time::Duration;

const SERVICES: usize = 1000;
const PODS: u8 = 100;
const HOSTS: [u8; 10] = [201, 202, 203, 204, 205, 206, 207, 208, 209, 210];

/// Changes after the cold fill, each of another Service.
const CHANGES: usize = 50;

const BUDGET: usize = 25_000_000;

/// Order in which Services and pods appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// All Services exist at the start.
    Start,
    /// Services appear faster than they are written, so every pod holds a different set until the last sync.
    Burst,
}

/// Measures in a child process that holds nothing else.
pub(crate) fn measure(report: &mut Report) {
    report.table(
        &format!("**Memory** (RSS) of a process that serves {PODS} pods and {SERVICES} Services of {} endpoints with nftables, after {CHANGES} changes; without the clients of API server and container runtime, and without logs.", HOSTS.len()),
        &["Services created", "RSS", "peak", "budget"],
    );
    report.row(row("before the start", Arrival::Start));
    report.row(row("in a burst", Arrival::Burst));
}

fn row(label: &str, arrival: Arrival) -> [String; 4] {
    let arrival = arrival.to_possible_value().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--measure-memory", arrival.get_name()])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut sizes = stdout
        .split_whitespace()
        .map(|size| size.parse::<usize>().unwrap() << 10);
    let (now, most) = (sizes.next().unwrap(), sizes.next().unwrap());
    let verdict = if now <= BUDGET { "" } else { ", **missed**" };
    let budget = megabytes(BUDGET) + verdict;
    [label.to_owned(), megabytes(now), megabytes(most), budget]
}

fn megabytes(bytes: usize) -> String {
    let tenths = bytes / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Creates all Services and writes each pod once meanwhile.
fn burst() -> Fixture {
    let mut fixture = Fixture::with_endpoints(BackendKind::Nftables, PODS, 0, &HOSTS);
    let each = SERVICES / usize::from(PODS);
    for n in 0..SERVICES {
        fixture.create_service(n, &HOSTS);
        if n.is_multiple_of(each) {
            fixture.sync_one(n / each);
        }
    }
    fixture
}

/// Body of the child process: prints its memory in KiB.
pub(crate) fn measure_this_process(arrival: Arrival) {
    let mut fixture = match arrival {
        Arrival::Start => Fixture::with_endpoints(BackendKind::Nftables, PODS, SERVICES, &HOSTS),
        Arrival::Burst => burst(),
    };
    fixture.sync();
    for n in 0..CHANGES {
        fixture.set_endpoints(n, &HOSTS[1..]);
        fixture.sync();
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    println!("{} {}", size("VmRSS:"), size("VmHWM:"));
}
