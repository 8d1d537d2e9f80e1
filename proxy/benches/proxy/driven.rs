//! Changes as the driver makes them: from a watch's event to the last pod written, in a process of its own.
//!
//! `limit` measures `apply` alone; here the driver plans each pod, takes a thread of its pool and knows what it knew after the last change.

use crate::Options;
use crate::bare::Bare;
use crate::bed::Bed;
use crate::cluster::Service;
use crate::driver::Driver;
use crate::limit::{Cost, cpu_time};
use crate::report::{Report, Times, ratio, show};
use crate::world::ENDPOINTS;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Services, and pods.
const SIZES: [(usize, u8); 4] = [(1000, 1), (1000, 10), (10, 100), (1000, 100)];

/// An endpoint that comes or goes, and its port's move to another class.
const ELEMENTS: u32 = 3;

/// So often the number of written pods is looked at.
const POLL: Duration = Duration::from_micros(200);

pub(crate) fn measure(options: &Options, report: &mut Report) {
    report.table(
        "**Through the driver**, nftables: one endpoint comes or goes, from the watch's event to the last pod written; CPU of the whole process. Bare as above.",
        &["Services", "pods", "min", "median", "p99", "CPU", "CPU a pod", "bare median", "bare CPU", "median ×", "CPU ×"],
    );
    for (services, pods) in SIZES {
        let mut bed = Bed::new();
        let netns: Vec<String> = (2..=pods + 1).map(|host| bed.pod(host).netns.clone()).collect();
        let (times, cpu) = changes(options, services, &netns);
        let mut bare = Bare::new(pods, ELEMENTS);
        bare.fill();
        let bare = Cost::of(options, || bare.change(), || {});
        report.row([
            services.to_string(),
            pods.to_string(),
            show(times.min()),
            show(times.median()),
            show(times.p99()),
            show(cpu),
            show(cpu / u32::from(pods)),
            show(bare.times.median()),
            show(bare.cpu),
            ratio(times.median(), bare.times.median()),
            ratio(cpu, bare.cpu),
        ]);
    }
}

/// Starts the child, and reads what it measures: how long each change took, and the CPU of one.
fn changes(options: &Options, services: usize, netns: &[String]) -> (Times, Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--start", &format!("{services},{}", netns.join(","))])
        .args(["--driven", &options.changes.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers = Vec::new();
    for line in lines.map_while(Result::ok).filter(|line| line != "ready") {
        numbers.push(Duration::from_nanos(line.parse().unwrap()));
    }
    assert!(child.wait().unwrap().success());
    let cpu = numbers.pop().expect("the child measured");
    (Times::of(numbers), cpu)
}

/// What the child does: prints nanoseconds of each change, and of CPU of one.
pub(crate) fn change(driver: &Driver, last: &Service, pods: usize, changes: usize) {
    let written = || driver.metric("multus_service_proxy_sync_duration_seconds_count{backend=\"nftables\"}");
    let mut cpu = Duration::ZERO;
    for n in 0..changes + 2 {
        std::thread::sleep(Duration::from_millis(50));
        let wanted = written() + u32::try_from(pods).unwrap();
        let mut service = crate::start::service(0);
        service.name.clone_from(&last.name);
        service.spec = last.spec.clone();
        let service = service.ready(&ENDPOINTS[..2 + n % 2]);
        let (began, before) = (Instant::now(), cpu_time());
        driver.service(&service);
        while written() < wanted {
            std::thread::sleep(POLL);
        }
        // Until the sets for another number of endpoints are there.
        if n >= 2 {
            cpu += cpu_time().saturating_sub(before);
            println!("{}", began.elapsed().as_nanos());
        }
    }
    println!("{}", (cpu / u32::try_from(changes).unwrap()).as_nanos());
}
