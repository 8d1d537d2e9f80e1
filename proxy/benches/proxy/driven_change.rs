//! Cost of an endpoint change through the driver, in a process of its own: from the watch event to the last programmed pod.
//!
//! `large_change` measures `apply` alone. The driver plans each pod, uses threads of its pool, and knows the addresses since the last change.

use crate::Options;
use crate::fake_node::Driver;
use crate::fixture::ENDPOINTS;
use crate::large_change::{Cost, cpu_time};
use crate::raw_netlink::RawNetlink;
use crate::report::{Report, Times, format_duration, ratio};
use crate::startup;
use crate::testbed::Testbed;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// Numbers of Services and pods.
const SIZES: [(usize, u8); 4] = [(1000, 1), (1000, 10), (10, 100), (1000, 100)];

/// Elements of one endpoint that is added or removed, and of its port's move to another set.
const ELEMENTS: u32 = 3;

/// Interval between two reads of the number of programmed pods.
const POLL: Duration = Duration::from_micros(500);

pub(crate) fn measure(options: &Options, report: &mut Report) {
    report.table(
        "**Through the driver**, nftables: one endpoint is added or removed, from the watch event to the last programmed pod; CPU of the whole process. Raw netlink: one batch of as many elements to each namespace.",
        &["Services", "pods", "min", "median", "p99", "CPU", "CPU a pod", "raw netlink median", "CPU", "median ×", "CPU ×"],
    );
    for (services, pods) in SIZES {
        let mut testbed = Testbed::new();
        let netns: Vec<String> = (2..=pods + 1)
            .map(|host| testbed.pod(host).netns.clone())
            .collect();
        let (times, cpu) = changes(options, services, &netns);
        let mut raw_netlink = RawNetlink::new(pods, ELEMENTS);
        raw_netlink.fill();
        let raw_netlink = Cost::of(options, || raw_netlink.change(), || {});
        report.row([
            services.to_string(),
            pods.to_string(),
            format_duration(times.min()),
            format_duration(times.median()),
            format_duration(times.p99()),
            format_duration(cpu),
            format_duration(cpu / u32::from(pods)),
            format_duration(raw_netlink.times.median()),
            format_duration(raw_netlink.cpu),
            ratio(times.median(), raw_netlink.times.median()),
            ratio(cpu, raw_netlink.cpu),
        ]);
    }
}

/// Starts the child and reads its results: the duration of each change, and the CPU time per change.
fn changes(options: &Options, services: usize, netns: &[String]) -> (Times, Duration) {
    let mut child = startup::spawn(services, netns, options.changes);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers = Vec::new();
    for line in lines.map_while(Result::ok).filter(|line| line != "ready") {
        numbers.push(Duration::from_nanos(line.parse().unwrap()));
    }
    assert!(child.wait().unwrap().success());
    let cpu = numbers.pop().expect("the child measured");
    (Times::of(numbers), cpu)
}

/// Body of the child process: prints the duration of each change, then the CPU time per change, in nanoseconds.
pub(crate) fn in_child(driver: &Driver, last: usize, pods: usize, changes: usize) {
    let written = || {
        driver.metric("multus_service_proxy_sync_proxy_rules_duration_seconds_count{backend=\"nftables\"}")
    };
    let mut cpu = Duration::ZERO;
    for n in 0..changes + 2 {
        std::thread::sleep(Duration::from_millis(50));
        let wanted = written() + u32::try_from(pods).unwrap();
        let service = startup::service(last).ready(&ENDPOINTS[..2 + n % 2]);
        let (began, before, polled) = (Instant::now(), cpu_time(), polls_time());
        driver.service(&service);
        while written() < wanted {
            std::thread::sleep(POLL);
        }
        // The first two create the sets for another number of endpoints.
        let took = began.elapsed();
        if n >= 2 {
            let polls = polls_time().saturating_sub(polled);
            cpu += cpu_time().saturating_sub(before).saturating_sub(polls);
            println!("{}", took.as_nanos());
        }
    }
    println!("{}", (cpu / u32::try_from(changes).unwrap()).as_nanos());
}

/// CPU time of the calling thread, which renders all metrics at each poll: no cost of the driver.
fn polls_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap()
}
