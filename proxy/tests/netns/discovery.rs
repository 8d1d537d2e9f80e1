//! From a pod's annotation to its rules: sandboxes that become ready late, are recreated, or remain while everything else is restarted.
//!
//! The runtime is scripted, for a hundred pods on one node. e2e/tests/discovery covers the same with three real runtimes.

use super::crash::effective_rules;
use super::fake_node::{Driver, FakeRuntime, object, object_with, uid, until, until_gone};
use super::many_pods::ManyPods;
use super::matrix::{BackendKind, for_every_backend};
use super::objects::Service;
use super::testbed::{Pod, Testbed};
use super::traffic::{Outcome, Server, probe};
use api::Family;
use proxy::backend::{Backend, Error};
use rules::{Delta, KernelState, Protocol};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

for_every_backend![
    pod_without_its_annotation_has_no_rules_until_the_annotation_returns,
    recreated_static_pod_mirror_does_not_disturb_its_sandbox,
];

fn web() -> Service {
    Service::new("web", 10).ready(&[2])
}

fn probe_web(pod: &Pod) -> Outcome {
    pod.run(|| probe(Protocol::Tcp, web().at(Family::V4, 80)))
}

fn is_served(pod: &Pod) -> bool {
    matches!(probe_web(pod), Outcome::Answered(..))
}

/// The generation of the nftables ruleset, which increases with every write.
fn generation(pod: &Pod) -> Option<u32> {
    pod.run(proxy::backend::nftables::generation)
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn recreated_sandbox_is_programmed_and_a_restarted_container_causes_no_write() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let client = testbed.pod(7);
    let mut object = object(&client);
    runtime.set_sandbox(uid(&object), &client.netns);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web()], &[&object]);
    until("served", || is_served(&client));
    until("applied", || driver.state_of(&object)["progress"] == "Applied");

    // Containers are restarted, also crash-looping ones; the sandbox remains.
    let written = generation(&client);
    for restart in 0..5 {
        let container = json!([{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": restart,
            "containerID": format!("containerd://{restart}"),
        }]);
        let status = object.status.as_mut().unwrap();
        status.container_statuses = serde_json::from_value(container).unwrap();
        driver.pod(&object);
        until("the update was applied", || {
            driver.state_of(&object)["progress"] == "Applied"
        });
    }
    assert_eq!(generation(&client), written, "nothing was written");

    // The same pod in another sandbox with other addresses; the old namespace is deleted.
    let again = testbed.pod(9);
    object.metadata.annotations = super::fake_node::object(&again).metadata.annotations;
    object.status.as_mut().unwrap().container_statuses = None;
    let deleted = std::process::Command::new("ip")
        .args(["netns", "del", &client.netns])
        .status();
    assert!(deleted.unwrap().success());
    driver.pod(&object);
    std::thread::sleep(Duration::from_millis(300));
    runtime.set_sandbox(uid(&object), &again.netns);
    until("served in the new sandbox", || is_served(&again));
    let node = testbed.open_node();
    until_gone(|| {
        let peers = node.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        !peers.unwrap().contains("v7:")
    });
}

/// Number of connections of `client` that succeeded during `work`, and the outcomes of the others.
fn probe_while(client: &Pod, work: impl FnOnce()) -> (u32, Vec<Outcome>) {
    let stop = AtomicBool::new(false);
    let probe_until_stopped = || {
        let (mut answered, mut lost) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match probe(Protocol::Tcp, web().at(Family::V4, 80)) {
                Outcome::Answered(..) => answered += 1,
                other => lost.push(other),
            }
        }
        (answered, lost)
    };
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| client.run(probe_until_stopped));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let counts = probing.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts
    })
}

fn pod_without_its_annotation_has_no_rules_until_the_annotation_returns(kind: BackendKind) {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let client = testbed.pod(7);
    let object = object(&client);
    let mut without = object.clone();
    without.metadata.annotations = None;
    let driver = Driver::start(&runtime, kind, &[&web()], &[&object]);
    // Created after the driver started: no other process can have written into it.
    runtime.set_sandbox(uid(&object), &client.netns);
    until("served", || is_served(&client));
    until("applied", || driver.state_of(&object)["progress"] == "Applied");
    let intact = effective_rules(kind, &client.state());
    for _ in 0..3 {
        driver.pod(&without);
        until("rules and routes are removed", || {
            let state = client.state();
            !state.contains("172.30.0.10") && !state.contains("proto 77")
        });
        driver.pod(&object);
        until("served again", || is_served(&client));
    }
    until("the rules are as before", || {
        effective_rules(kind, &client.state()) == intact
    });
}

/// The kubelet recreates the mirror of a static pod with another UID for the same sandbox.
fn recreated_static_pod_mirror_does_not_disturb_its_sandbox(kind: BackendKind) {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let client = testbed.pod(7);
    let mirror = |n: u32| {
        let mut mirror = object(&client);
        let annotations = mirror.metadata.annotations.as_mut().unwrap();
        annotations.insert(
            "kubernetes.io/config.mirror".to_owned(),
            mirror.metadata.uid.replace(format!("mirror-{n}")).unwrap(),
        );
        mirror
    };
    let driver = Driver::start(&runtime, kind, &[&web()], &[&mirror(0)]);
    runtime.set_sandbox(uid(&object(&client)), &client.netns);
    until("served", || is_served(&client));
    until("applied", || driver.state_of(&mirror(0))["progress"] == "Applied");
    let intact = effective_rules(kind, &client.state());
    let (answered, lost) = probe_while(&client, || {
        for n in 0..6 {
            // Usually during a write.
            driver.service(&Service::new("other", 11).ready(if n % 2 == 0 { &[2] } else { &[] }));
            driver.delete_pod(&mirror(n));
            driver.pod(&mirror(n + 1));
            until("adopted", || {
                driver.state_of(&mirror(n + 1))["progress"] == "Applied"
            });
        }
    });
    println!("{kind:?}: {answered} answered");
    assert_eq!(lost, []);
    assert!(answered > 20, "only {answered}");
    driver.delete_service(&Service::new("other", 11));
    until("the rules are as before", || {
        effective_rules(kind, &client.state()) == intact
    });
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn undecodable_pod_keeps_its_rules() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let client = testbed.pod(7);
    let object = object(&client);
    runtime.set_sandbox(uid(&object), &client.netns);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web()], &[&object]);
    until("served", || is_served(&client));
    driver.undecodable_pod(&object);
    driver.service(&Service::new("other", 11).ready(&[2]));
    until("the pod is still programmed", || {
        client.state().contains("172.30.0.11")
    });
    assert!(is_served(&client));
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn hot_plugged_interface_is_served_until_it_is_unplugged() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let client = testbed.pod(7);
    let both = object(&client);
    let eth0_alone = object_with(
        &client,
        r#"[{"name":"cbr0","interface":"eth0","ips":["10.128.0.7"]}]"#,
    );
    runtime.set_sandbox(uid(&both), &client.netns);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web()], &[&eth0_alone]);
    until("ready", || driver.is_ready());
    let before = client.state();
    assert!(!before.contains("multus-proxy"), "{before}");
    driver.pod(&both);
    until("served", || is_served(&client));
    driver.pod(&eth0_alone);
    until("rules and routes are removed", || {
        let state = client.state();
        !state.contains("172.30.0.10") && !state.contains("proto 77")
    });
    driver.pod(&both);
    until("served again", || is_served(&client));
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn host_network_pod_is_ignored_regardless_of_its_annotation() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let client = testbed.pod(7);
    let mut host_network = object(&client);
    host_network.spec.as_mut().unwrap().host_network = Some(true);
    runtime.set_sandbox(uid(&host_network), &client.netns);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web()], &[&host_network]);
    until("ready", || driver.is_ready());
    assert_eq!(driver.state()["pods"], json!([]));
    // A runtime that returns the node's own namespace is rejected, too.
    host_network.spec.as_mut().unwrap().host_network = None;
    std::os::unix::fs::symlink("/proc/self/ns/net", format!("/run/netns/{}-link", client.netns)).unwrap();
    runtime.set_sandbox(uid(&host_network), &format!("{}-link", client.netns));
    driver.pod(&host_network);
    let rejected = || {
        driver.state_of(&host_network)["why"]
            .as_str()
            .unwrap_or_default()
            .contains("of the node, not of a pod")
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("it is rejected", rejected)));
    std::fs::remove_file(format!("/run/netns/{}-link", client.netns)).unwrap();
    result.unwrap();
}

/// nftables, with the time of the last translation in each namespace.
struct TimingBackend {
    inner: Box<dyn Backend>,
    done: Arc<Mutex<BTreeMap<u64, Instant>>>,
}

impl TimingBackend {
    fn record(&self) {
        let inode = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        self.done.lock().unwrap().insert(inode, Instant::now());
    }
}

impl Backend for TimingBackend {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn is_present(&self) -> Result<bool, Error> {
        self.inner.is_present()
    }
    fn dump(&self) -> Result<KernelState, Error> {
        self.inner.dump()
    }
    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.inner.reject(delta)
    }
    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        let translated = self.inner.translate(delta);
        self.record();
        translated
    }
    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.inner.unreject(delta)
    }
    fn remove_translation(&self) -> Result<(), Error> {
        self.inner.remove_translation()
    }
    fn remove_rejection(&self) -> Result<(), Error> {
        self.inner.remove_rejection()
    }
}

/// Delay from a pod's annotation to its ready sandbox, spread over the values observed with three runtimes.
fn sandbox_delay(n: usize) -> Duration {
    Duration::from_millis(u64::try_from(n * 37 % 400).unwrap())
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn hundred_pods_have_rules_soon_after_their_sandboxes_are_ready() {
    let (testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let many_pods = ManyPods::new(&testbed.node(), 0, 100);
    let done = Arc::new(Mutex::new(BTreeMap::new()));
    let backend = TimingBackend {
        inner: BackendKind::Nftables.backend(),
        done: Arc::clone(&done),
    };
    let services: Vec<_> = (10..60)
        .map(|n| Service::new(&format!("s{n}"), n).ready(&[2, 3]))
        .collect();
    let driver = Driver::with_backend(
        &runtime,
        Arc::new(backend),
        &services.iter().collect::<Vec<_>>(),
        &[],
    );
    until("ready", || driver.is_ready());
    let mut took = Vec::new();
    // Some pods start at the same time, as after a drain.
    for group in many_pods.pods().enumerate().collect::<Vec<_>>().chunks(5) {
        for (_, (_, object)) in group {
            driver.pod(object);
        }
        let began = Instant::now();
        let mut order = group.to_vec();
        order.sort_by_key(|(n, _)| sandbox_delay(*n));
        let mut ready = Vec::new();
        for (n, (pod, object)) in order {
            std::thread::sleep(sandbox_delay(n).saturating_sub(began.elapsed()));
            ready.push((pod, Instant::now()));
            runtime.set_sandbox(uid(object), &pod.netns);
        }
        for (pod, ready) in ready {
            let inode = std::fs::metadata(format!("/run/netns/{}", pod.netns))
                .unwrap()
                .ino();
            until("rules", || done.lock().unwrap().contains_key(&inode));
            took.push(done.lock().unwrap()[&inode].saturating_duration_since(ready));
        }
    }
    took.sort_unstable();
    let [median, p99] = [50, 98].map(|n| took[n]);
    println!("sandbox READY to rules, 100 pods, 50 Services: median {median:?}, p99 {p99:?}");
    // The budget of 50 ms applies to an idle machine; tests share theirs.
    assert!(p99 < Duration::from_secs(10), "{took:?}");
}
