//! A process starts on a node whose pods are there: until the last pod has its rules.
//!
//! The driver, as the proxy runs it, in a process of its own. What it lists comes from memory, and so do sandboxes: neither API server nor
//! container runtime is measured.

use crate::Options;
use crate::bare::Bare;
use crate::bed::{Bed, Pod, address};
use crate::case::Kind;
use crate::cluster::Service;
use crate::driven;
use crate::driver::{Driver, Runtime, object};
use crate::report::{Report, ratio, show};
use crate::world::ENDPOINTS;
use api::network_status::NetworkStatus;
use rules::{Family, Protocol};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Services, and pods.
const SIZES: [(usize, u8); 4] = [(1, 10), (1, 100), (100, 100), (1000, 100)];

/// Of each Service: VIP, source address, endpoints, and their number.
const ELEMENTS: usize = 3 + ENDPOINTS.len();

pub(crate) fn measure(_options: &Options, report: &mut Report) {
    report.table(
        "**Cold start**: from the start of a process to the last pod written, nftables; pods that were there before and hold nothing, so that each is looked at. Lists and sandboxes come from memory: what API server and container runtime take is not in it. The limit is one bare netlink batch of all elements to each namespace.",
        &["Services", "pods", "took", "again, nothing to write", "bare", "×"],
    );
    for (services, pods) in SIZES {
        let mut bed = Bed::new();
        let netns: Vec<String> = (2..=pods + 1).map(|host| bed.pod(host).netns.clone()).collect();
        let [first, again] = [(); 2].map(|()| start(services, &netns));
        let bare = Bare::new(pods, u32::try_from(services * ELEMENTS).unwrap());
        let began = Instant::now();
        bare.fill();
        let limit = began.elapsed();
        report.row([
            services.to_string(),
            pods.to_string(),
            show(first),
            show(again),
            show(limit),
            ratio(first, limit),
        ]);
    }
}

/// Runs the driver of these pods in a process of its own until they are written.
fn start(services: usize, netns: &[String]) -> Duration {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--start", &format!("{services},{}", netns.join(","))])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let took = began.elapsed();
    assert_eq!(line, "ready\n", "{services} Services, {} pods", netns.len());
    assert!(child.wait().unwrap().success());
    took
}

/// What the child does: serves these namespaces until all are written, then makes so many changes.
pub(crate) fn serve(what: &str, changes: usize) {
    let mut words = what.split(',');
    let services: usize = words.next().unwrap().parse().unwrap();
    let services: Vec<Service> = (0..services).map(service).collect();
    let runtime = Runtime::new();
    let pods: Vec<_> = words
        .zip(2..)
        .map(|(netns, host)| {
            runtime.ready_in(&format!("uid-{netns}"), netns);
            let status = NetworkStatus {
                network: "web/macvlan1".to_owned(),
                interface: "net1".to_owned(),
                addresses: vec![address(1, Family::V4, host)],
            };
            object(&Pod {
                netns: netns.to_owned(),
                host,
                status: vec![status],
            })
        })
        .collect();
    let driver = Driver::start(
        &runtime,
        Kind::Nftables,
        &services.iter().collect::<Vec<_>>(),
        &pods.iter().collect::<Vec<_>>(),
    );
    while !driver.is_ready() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("ready");
    if changes > 0 {
        driven::change(&driver, &services[services.len() - 1], pods.len(), changes);
    }
    driver.stop();
}

pub(crate) fn service(n: usize) -> Service {
    let mut service = Service::new(&format!("svc-{n}"), 0)
        .ports(&[(Protocol::Tcp, 80, 8080)])
        .ready(&ENDPOINTS);
    let vip = crate::world::vip(n);
    service.spec = json!({"clusterIPs": [vip]});
    service
}
