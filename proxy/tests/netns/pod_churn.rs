//! Churn of a thousand pods: afterwards the proxy uses the same resources as before and holds no namespace of a deleted pod.
//!
//! The driver and the namespaces are real; the cluster and the container runtime are scripted, because no cluster on one machine starts a
//! thousand pods in seconds. e2e/tests/soak.rs covers the same on a real cluster with fewer pods.

use super::fake_node::{Driver, FakeRuntime, uid, until, until_gone};
use super::many_pods::{self, ManyPods};
use super::matrix::BackendKind;
use super::objects::{Service, rules};
use super::testbed::Testbed;
use proxy::backend::KnownRules;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
const PODS: usize = 100;

/// Allowed growth after the first round, when caches and pools are filled.
const MAX_MORE_DESCRIPTORS: usize = 2;
const MAX_MORE_THREADS: usize = 2;
const MAX_MORE_MEMORY_KIB: usize = 8 << 10;

/// Resources of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    descriptors: usize,
    /// Descriptors that are sockets.
    sockets: usize,
    pub(crate) threads: usize,
    pub(crate) memory_kib: usize,
    /// Peak memory since [`Self::reset_peak`].
    pub(crate) peak_kib: usize,
}

impl Resources {
    pub(crate) fn now() -> Self {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let links: Vec<_> = links
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .collect();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            descriptors: links.len(),
            sockets: links
                .iter()
                .filter(|link| link.to_string_lossy().starts_with("socket:"))
                .count(),
            threads: number("Threads:"),
            memory_kib: number("VmRSS:"),
            peak_kib: number("VmHWM:"),
        }
    }

    /// See proc(5), `clear_refs`.
    pub(crate) fn reset_peak() {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
    }
}

/// CPU time of this process, and page faults of its children, which are nonzero as soon as a program is run.
pub(crate) fn cpu_time_and_child_faults() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let columns: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // See proc(5); the first column here is field 3. Its times are in ticks of 10 ms, too coarse for an idle process.
    let faults = columns[11 - 3].parse().unwrap();
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.try_into().unwrap(), faults)
}

/// One round: pods are created while Services change, and deleted in every order that occurs on a node.
fn round(testbed: &Testbed, number: usize, runtime: &Arc<FakeRuntime>, driver: &Driver) {
    let many_pods = ManyPods::new(&testbed.node(), number, PODS);
    // Some pods are deleted before they are served.
    let deleted_early: Vec<_> = many_pods.pods().step_by(7).collect();
    many_pods::delete(&deleted_early);
    for (n, (pod, object)) in many_pods.pods().enumerate() {
        driver.pod(object);
        runtime.set_sandbox(uid(object), &pod.netns);
        if n % 10 == 0 {
            let host = u8::try_from(n / 10).unwrap() + 2;
            driver.service(&Service::new("s10", 10).ready(&[2, host]));
        }
    }
    until("the remaining pods are served", || {
        let state = driver.state();
        let pods = state["pods"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["progress"] == "Applied").count() == PODS - deleted_early.len()
    });
    // The API server may report a deletion before or long after the runtime.
    let left: Vec<_> = many_pods
        .pods()
        .enumerate()
        .filter(|(n, _)| n % 7 != 0)
        .map(|(_, pod)| pod)
        .collect();
    let (first, second) = left.split_at(left.len() / 2);
    many_pods::delete(first);
    driver.service(&Service::new("s10", 10).ready(&[3]));
    for (_, object) in many_pods.pods() {
        runtime.remove(uid(object));
        driver.delete_pod(object);
    }
    many_pods::delete(second);
    until_gone(|| many_pods.is_gone(testbed));
    until("the driver has forgotten them", || {
        driver.state()["pods"].as_array().is_some_and(Vec::is_empty)
    });
}

/// Runs in a process of its own, so that its resources are the driver's. Does nothing unless started by the other test.
#[test]
#[ignore = "started by thousand_short_lived_pods_leak_no_resources"]
fn subprocess() {
    if std::env::var_os(SUBPROCESS).is_none() {
        return;
    }
    let (testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let services: Vec<_> = (10..30)
        .map(|n| Service::new(&format!("s{n}"), n).ready(&[2, 3]))
        .collect();
    let driver = Driver::start(
        &runtime,
        BackendKind::Nftables,
        &services.iter().collect::<Vec<_>>(),
        &[],
    );
    until("ready", || driver.is_ready());
    round(&testbed, 0, &runtime, &driver);
    let before = Resources::now();
    for number in 1..ROUNDS {
        let began = Instant::now();
        round(&testbed, number, &runtime, &driver);
        println!("round {number}: {:?}, {:?}", began.elapsed(), Resources::now());
    }
    let mut after = Resources::now();
    let settled = || {
        after = Resources::now();
        after.descriptors <= before.descriptors + MAX_MORE_DESCRIPTORS
            && after.sockets <= before.sockets
            && after.threads <= before.threads + MAX_MORE_THREADS
    };
    until("descriptors, sockets and threads are as few as before", settled);
    println!("before {before:?}, after {after:?}");
    assert!(
        after.memory_kib <= before.memory_kib + MAX_MORE_MEMORY_KIB,
        "{before:?} {after:?}"
    );
}

const SUBPROCESS: &str = "MSP_CHURN_SUBPROCESS";

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn thousand_short_lived_pods_leak_no_resources() {
    run_in_subprocess("pod_churn::subprocess", SUBPROCESS);
}

const REUSE_SUBPROCESS: &str = "MSP_REUSE_SUBPROCESS";

/// Sockets of this process.
fn sockets() -> BTreeSet<PathBuf> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .collect()
}

/// Like [`subprocess`].
#[test]
#[ignore = "started by sockets_are_reused_and_closed_soon_after_the_last_change"]
fn reuse_subprocess() {
    if std::env::var_os(REUSE_SUBPROCESS).is_none() {
        return;
    }
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let before = sockets();
    let opened = || -> Vec<PathBuf> { sockets().difference(&before).cloned().collect() };
    let wanted = |host| rules(&client, &[Service::new("web", 10).ready(&[host])]);
    let mut held = client
        .apply(BackendKind::Nftables, &KnownRules::Nothing, &wanted(2))
        .rules;
    let kept = opened();
    // One to netfilter, one for routes.
    assert_eq!(kept.len(), 2, "{kept:?}");
    for host in [3, 4, 3] {
        held = client
            .apply(BackendKind::Nftables, &KnownRules::Exactly(held), &wanted(host))
            .rules;
        assert_eq!(opened(), kept);
    }
    until("the sockets are closed", || opened().is_empty());
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn sockets_are_reused_and_closed_soon_after_the_last_change() {
    run_in_subprocess("pod_churn::reuse_subprocess", REUSE_SUBPROCESS);
}

/// Runs a test, which does nothing without this variable, in a child process.
pub(crate) fn run_in_subprocess(test: &str, variable: &str) {
    run_in_subprocess_with(test, variable, "1");
}

/// Like [`run_in_subprocess`], with this value.
pub(crate) fn run_in_subprocess_with(test: &str, variable: &str, value: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(variable, value)
        // Same values as in the DaemonSet.
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_TRIM_THRESHOLD_", "65536")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{stdout}");
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}\n{stderr}"
    );
}
