//! Time from the start of a process on a node with existing pods until the last pod is programmed.
//!
//! The driver runs as in the proxy, in a process of its own. Lists and sandboxes come from memory: neither the API server nor the container
//! runtime is measured.

use crate::Options;
use crate::driven_change;
use crate::fake_node::{Driver, FakeRuntime, object};
use crate::fixture::ENDPOINTS;
use crate::matrix::BackendKind;
use crate::objects::Service;
use crate::raw_netlink::RawNetlink;
use crate::report::{Report, format_duration, ratio};
use crate::testbed::{Pod, Testbed, address};
use api::Family;
use api::network_status::NetworkStatus;
use rules::Protocol;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Numbers of Services and pods.
const SIZES: [(usize, u8); 4] = [(1, 10), (1, 100), (100, 100), (1000, 100)];

/// Elements per Service: VIP, source address, endpoints, and the endpoint count.
const ELEMENTS: usize = 3 + ENDPOINTS.len();

pub(crate) fn measure(_options: &Options, report: &mut Report) {
    report.table(
        "**Cold start**: from process start to the last programmed pod, with nftables. The pods exist before the process and have no rules, so each of them is read. Lists and sandboxes come from memory, without API server and container runtime. The lower bound is one bare netlink batch of all elements to each namespace.",
        &["Services", "pods", "first start", "restart without changes", "raw netlink", "×"],
    );
    for (services, pods) in SIZES {
        let mut testbed = Testbed::new();
        let netns: Vec<String> = (2..=pods + 1)
            .map(|host| testbed.pod(host).netns.clone())
            .collect();
        let [first, again] = [(); 2].map(|()| start(services, &netns));
        let raw_netlink = RawNetlink::new(pods, u32::try_from(services * ELEMENTS).unwrap());
        let began = Instant::now();
        raw_netlink.fill();
        let limit = began.elapsed();
        report.row([
            services.to_string(),
            pods.to_string(),
            format_duration(first),
            format_duration(again),
            format_duration(limit),
            ratio(first, limit),
        ]);
    }
}

fn start(services: usize, netns: &[String]) -> Duration {
    let began = Instant::now();
    let mut child = spawn(services, netns, 0);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let took = began.elapsed();
    assert_eq!(line, "ready\n", "{services} Services, {} pods", netns.len());
    assert!(child.wait().unwrap().success());
    took
}

/// Starts a child process that runs [`serve`].
pub(crate) fn spawn(services: usize, netns: &[String], changes: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--start", &format!("{services},{}", netns.join(","))])
        .args(["--changes-in-child", &changes.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Body of the child process: serves these namespaces until all are programmed, then makes this number of changes.
pub(crate) fn serve(what: &str, changes: usize) {
    let mut words = what.split(',');
    let services: usize = words.next().unwrap().parse().unwrap();
    let services: Vec<Service> = (0..services).map(service).collect();
    let runtime = FakeRuntime::new();
    let pods: Vec<_> = words
        .zip(2..)
        .map(|(netns, host)| {
            runtime.set_sandbox(&format!("uid-{netns}"), netns);
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
        BackendKind::Nftables,
        &services.iter().collect::<Vec<_>>(),
        &pods.iter().collect::<Vec<_>>(),
    );
    while !driver.is_ready() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("ready");
    if changes > 0 {
        driven_change::in_child(&driver, services.len() - 1, pods.len(), changes);
    }
    driver.stop();
}

pub(crate) fn service(n: usize) -> Service {
    let mut service = Service::new(&format!("svc-{n}"), 0)
        .ports(&[(Protocol::Tcp, 80, 8080)])
        .ready(&ENDPOINTS);
    let vip = crate::fixture::vip(n);
    service.spec = json!({"clusterIPs": [vip]});
    service
}
