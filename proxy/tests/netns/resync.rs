//! Detection of nftables changes by other processes: the driver polls the generation of each served namespace.

use super::bare_poll;
use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::many_pods::ManyPods;
use super::matrix::BackendKind;
use super::objects::Service;
use super::pod_churn::{Resources, cpu_time_and_child_faults, run_in_subprocess};
use super::testbed::{Pod, Testbed};
use proxy::backend::nftables::generation;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bound documented in docs/user/services.md.
const DOCUMENTED_REPAIR_TIME: Duration = Duration::from_secs(5);

const ATTEMPTS: &str = r#"multus_service_proxy_sync_proxy_rules_duration_seconds_count{backend="nftables"}"#;

fn web() -> Service {
    Service::new("web", 10).ready(&[2])
}

fn start(runtime: &Arc<FakeRuntime>, pods: &[&Pod]) -> Driver {
    let objects: Vec<_> = pods.iter().map(|pod| object(pod)).collect();
    for (pod, object) in pods.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let all: Vec<_> = objects.iter().collect();
    let driver = Driver::start(runtime, BackendKind::Nftables, &[&web()], &all);
    until("ready", || driver.is_ready());
    assert!(pods.iter().all(|pod| has_rules(pod)));
    driver
}

fn has_rules(pod: &Pod) -> bool {
    pod.sh("nft list ruleset").contains("172.30.0.10")
}

/// Repeatedly flushes the rules and waits for their repair. The median has to meet the bound, because the test machine is shared.
fn assert_repaired(pod: &Pod, times: usize) {
    let mut took: Vec<_> = (0..times).map(|_| flush_and_wait(pod)).collect();
    took.sort_unstable();
    println!("repaired after {took:?}");
    assert!(took[times / 2] < DOCUMENTED_REPAIR_TIME, "{took:?}");
}

fn flush_and_wait(pod: &Pod) -> Duration {
    pod.sh("nft flush ruleset");
    let began = Instant::now();
    until("the rules are back", || has_rules(pod));
    began.elapsed()
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn flushed_rules_are_restored_within_the_documented_time() {
    let mut testbed = Testbed::new();
    let (client, runtime) = (testbed.pod(7), FakeRuntime::new());
    let driver = start(&runtime, &[&client]);
    let repaired = || driver.metric("multus_service_proxy_rules_repaired_total");
    assert_eq!(repaired(), 0, "nothing is repaired at a start");
    assert_repaired(&client, 5);
    until("every repair is counted once", || repaired() == 5);
    driver.service(&Service::new("other", 11).ready(&[2]));
    until("the Service is served", || {
        client.sh("nft list ruleset").contains("172.30.0.11")
    });
    assert_eq!(repaired(), 5, "a change is no repair");
}

/// As on a node whose kube-proxy writes nftables, or beside a program in the pod that does.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn unrelated_rule_changes_are_checked_at_growing_intervals() {
    let mut testbed = Testbed::new();
    let (client, runtime) = (testbed.pod(7), FakeRuntime::new());
    let driver = start(&runtime, &[&client]);
    let before = (driver.metric(ATTEMPTS), client.run(generation).unwrap());
    client.sh("for i in $(seq 120); do nft 'add table ip other; delete table ip other'; sleep 0.1; done");
    let resyncs = driver.metric(ATTEMPTS) - before.0;
    let changes = client.run(generation).unwrap() - before.1;
    println!("{changes} changes in 12 s, {resyncs} resyncs");
    assert!(changes >= 120, "{changes}");
    assert!((1..=8).contains(&resyncs), "{resyncs}");
    flush_and_wait(&client);
}

/// Entering a namespace, or closing a socket there, may block for as long as its owner likes. Here the path is a FIFO without a writer.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn blocking_namespace_delays_no_other() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let (stuck, healthy) = (testbed.pod(7), testbed.pod(8));
    let link = NetnsLink::new(&stuck);
    let linked = Pod {
        netns: link.name(),
        ..stuck.clone()
    };
    let driver = start(&runtime, &[&linked, &healthy]);
    link.replace_with_fifo();
    let threads = Resources::now().threads;
    assert_repaired(&healthy, 3);
    assert!(
        Resources::now().threads <= threads + 4,
        "only one thread blocks there"
    );
    assert!(driver.is_alive());
    link.restore();
    // Once it is reachable, it is polled again.
    flush_and_wait(&stuck);
}

/// A second name of a pod's namespace.
struct NetnsLink(PathBuf, String);

impl NetnsLink {
    fn new(pod: &Pod) -> Self {
        let link = Self(
            Path::new("/run/netns").join(format!("{}l", pod.netns)),
            pod.netns.clone(),
        );
        link.create();
        link
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn create(&self) {
        std::os::unix::fs::symlink(&self.1, &self.0).unwrap();
    }

    fn replace_with_fifo(&self) {
        std::fs::remove_file(&self.0).unwrap();
        assert!(Command::new("mkfifo").arg(&self.0).status().unwrap().success());
    }

    /// Unblocks readers that wait for a writer.
    fn restore(&self) {
        let writer = std::fs::OpenOptions::new().read(true).write(true).open(&self.0);
        std::fs::remove_file(&self.0).unwrap();
        self.create();
        // A reader that was just woken finds the FIFO open.
        std::thread::sleep(Duration::from_millis(100));
        drop(writer);
    }
}

impl Drop for NetnsLink {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Tens of thousands of routes, as a BGP daemon loads them, in a named namespace that is not served.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn route_storm_in_an_unserved_namespace_is_not_received() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let (client, unserved) = (testbed.pod(7), testbed.pod(9));
    let driver = start(&runtime, &[&client]);
    let named = Command::new("ip")
        .args(["netns", "set", &unserved.netns, "auto"])
        .status();
    assert!(named.unwrap().success());
    let before = driver.metric(ATTEMPTS);
    // More notifications than the socket buffer holds, while the driver is paused.
    driver.while_paused(|| {
        unserved.sh(
            "for n in $(seq 40); do for m in $(seq 250); do echo route add 192.0.$n.$m dev net1; done; done | ip -batch -; ip route flush dev net1 root 192.0.0.0/16",
        );
    });
    until("the driver is running again", || {
        driver.state()["pods"].is_array()
    });
    // An overrun would resync every pod about 300 ms later.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(driver.metric(ATTEMPTS), before);
}

const IDLE_SUBPROCESS: &str = "MSP_IDLE_SUBPROCESS";
const PODS: usize = 100;
const SECONDS: u32 = 20;

/// Longest pause between two rounds of polls, in seconds: a hundred namespaces take so long that the driver never pauses for less.
const PAUSE: u32 = 3;

/// CPU time of the driver in units of a bare poll of the same namespaces at the same interval. An absolute bound would measure the machine.
const MAX_RATIO: u32 = if cfg!(debug_assertions) { 6 } else { 4 };

/// Runs in a process of its own, so that its CPU time is the driver's. Does nothing unless started by the other test.
#[test]
#[ignore = "started by hundred_idle_pods_use_almost_no_cpu"]
fn idle_subprocess() {
    if std::env::var_os(IDLE_SUBPROCESS).is_none() {
        return;
    }
    let (testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let many_pods = ManyPods::new(&testbed.node(), 0, PODS);
    let objects: Vec<_> = many_pods.pods().map(|(_, object)| object).collect();
    for (pod, object) in many_pods.pods() {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web()], &objects);
    until("ready", || driver.is_ready());
    let applied = |state: &serde_json::Value| {
        let pods = state["pods"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["progress"] == "Applied").count()
    };
    until("all pods are served", || applied(&driver.state()) == PODS);
    // Sockets are kept open for a second.
    std::thread::sleep(Duration::from_secs(3));
    let generations = || -> Vec<_> { many_pods.pods().map(|(pod, _)| pod.run(generation)).collect() };
    let before = generations();
    std::thread::sleep(Duration::from_secs(3));

    let bare = bare_poll::start(&many_pods, SECONDS / PAUSE, Duration::from_secs(PAUSE.into()));
    let (held, (cpu, children)) = (Resources::now(), cpu_time_and_child_faults());
    std::thread::sleep(Duration::from_secs(SECONDS.into()));
    let (after, (cpu_after, children_after)) = (Resources::now(), cpu_time_and_child_faults());
    let bare = bare.join().unwrap();
    let cpu = cpu_after.saturating_sub(cpu).saturating_sub(bare);
    println!("{PODS} pods: {cpu:?} of CPU in {SECONDS} s, a bare poll {bare:?}; {held:?}, {after:?}");
    assert_eq!(children_after, children, "a program was run");
    assert!(cpu <= MAX_RATIO * bare, "{cpu:?}");
    assert_eq!(generations(), before, "nothing was written");
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn hundred_idle_pods_use_almost_no_cpu() {
    run_in_subprocess("resync::idle_subprocess", IDLE_SUBPROCESS);
}
