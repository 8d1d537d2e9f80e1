//! Pods whose owners overfill the managed table, all at once: the proxy's memory stays within its budget, every pod is served again, and
//! the reason is reported.

use super::echo_server::Server;
use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Service, rules};
use super::pod_churn::{Resources, run_in_subprocess_with};
use super::testbed::{Pod, Testbed};
use super::traffic::{Outcome, probe};
use api::Family;
use proxy::backend::{Backend, Error, KnownRules};
use rules::{Delta, KernelState, Protocol};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const PODS: u8 = 8;

/// Elements per transaction: the kernel notifies subscribers of each element with an 8 KiB message.
const BATCH: u32 = 4000;

/// Budget of all attempts together, see `proxy::netns::memory`.
const MAX_MORE_MEMORY_KIB: usize = 128 << 10;

const SUBPROCESS: &str = "MSP_MEMORY_SUBPROCESS";

/// Content that an owner adds to the managed table.
#[derive(Clone, Copy, Debug)]
enum TableContent {
    ForeignSets,
    Endpoints,
    Rules,
}

impl TableContent {
    /// nft scripts, each one small transaction.
    fn transactions(self) -> Vec<String> {
        let mut all = vec!["add table ip multus-proxy\n".to_owned()];
        match self {
            Self::ForeignSets => {
                for set in 0..4 {
                    all.push(format!(
                        "add set ip multus-proxy owners{set} {{ type ipv4_addr; }}\n"
                    ));
                    let elements = |n: u32| format!("{}.{}.{}.{}", 1 + (n >> 16), n >> 8 & 255, n & 255, set);
                    all.extend(adding(&format!("owners{set}"), 50_000, elements));
                }
            }
            Self::Endpoints => {
                all.push(
                    "add map ip multus-proxy eps { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }\n"
                        .to_owned(),
                );
                let elements = |n: u32| {
                    format!(
                        "172.30.0.200 . tcp . {} . {} : 10.1.0.2 . 80",
                        1 + n % 60_000,
                        n / 60_000
                    )
                };
                all.extend(adding("eps", 120_000, elements));
            }
            Self::Rules => {
                all.push("add chain ip multus-proxy dispatch\n".to_owned());
                for batch in 0..3 {
                    let rule = |n| {
                        let address = format!("10.{batch}.{}.{}", n >> 8, n & 255);
                        format!("add rule ip multus-proxy dispatch ip daddr {address} accept\n")
                    };
                    all.push((0..BATCH).map(rule).collect());
                }
            }
        }
        all
    }
}

fn adding(set: &str, count: u32, element: impl Fn(u32) -> String) -> Vec<String> {
    let batches = (0..count).step_by(BATCH as usize);
    let batch = |from: u32| {
        let mut text = format!("add element ip multus-proxy {set} {{ ");
        for n in from..(from + BATCH).min(count) {
            write!(text, "{}, ", element(n)).unwrap();
        }
        text + "}\n"
    };
    batches.map(batch).collect()
}

fn fill(pod: &Pod, content: TableContent) {
    for transaction in content.transactions() {
        run_with_input(pod, &["nft", "-f", "-"], &transaction);
    }
}

/// Runs a program in a pod with this input.
fn run_with_input(pod: &Pod, program: &[&str], input: &str) {
    let mut command = pod.command();
    let mut child = command.args(program).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program:?}");
}

/// Runs in a process of its own, so that its memory is the driver's. Does nothing unless started by another test.
#[test]
#[ignore = "started by oversized_tables_use_bounded_memory"]
fn subprocess() {
    let content = match std::env::var(SUBPROCESS).as_deref() {
        Ok("foreign sets") => TableContent::ForeignSets,
        Ok("endpoints") => TableContent::Endpoints,
        Ok("rules") => TableContent::Rules,
        _ => return,
    };
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let pods: Vec<_> = (0..PODS).map(|n| testbed.pod(10 + n)).collect();
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| fill(pod, content));
        }
    });
    let objects: Vec<_> = pods.iter().map(object).collect();
    for (pod, object) in pods.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let web = Service::new("web", 10).ready(&[2]);
    let before = Resources::now();
    Resources::reset_peak();
    let driver = Driver::start(
        &runtime,
        BackendKind::Nftables,
        &[&web],
        &objects.iter().collect::<Vec<_>>(),
    );
    let at = web.at(Family::V4, 80);
    for pod in &pods {
        until("the pod is served", || {
            pod.run(|| matches!(probe(Protocol::Tcp, at), Outcome::Answered(..)))
        });
    }
    until("ready", || driver.is_ready());
    let after = Resources::now();
    println!("{content:?}: before {before:?}, after {after:?}");
    assert!(
        after.peak_kib <= before.memory_kib + MAX_MORE_MEMORY_KIB,
        "{content:?}: {before:?} {after:?}"
    );
    for pod in &pods {
        let table = pod.sh("nft list tables; nft list sets; nft list chain ip multus-proxy dispatch");
        assert!(!table.contains("owners") && !table.contains("10.0.0."), "{table}");
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn oversized_tables_use_bounded_memory() {
    for content in ["foreign sets", "endpoints", "rules"] {
        run_in_subprocess_with("memory_limits::subprocess", SUBPROCESS, content);
    }
}

for_every_backend![pod_that_exceeds_the_read_limit_is_rebuilt_and_reported];

/// Adds more chains or elements with managed names than an attempt reads; with nftables also an unmanaged set.
fn exceed_read_limit(pod: &Pod, kind: BackendKind) {
    let program = match kind {
        BackendKind::Nftables => {
            fill(pod, TableContent::Endpoints);
            let foreign = "add set ip multus-proxy owners { type ipv4_addr; }\n";
            return run_with_input(pod, &["nft", "-f", "-"], foreign);
        }
        BackendKind::IptablesNft => "iptables-nft-restore",
        BackendKind::IptablesLegacy => "iptables-legacy-restore",
    };
    let mut text = "*nat\n:MSP-SVC-OWNERS - [0:0]\n".to_owned();
    for n in 0..40_000_u32 {
        writeln!(
            text,
            "-A MSP-SVC-OWNERS -d 10.{}.{}.{}/32 -p tcp -j RETURN",
            n >> 16,
            n >> 8 & 255,
            n & 255
        )
        .unwrap();
    }
    run_with_input(pod, &[program, "--noflush"], &(text + "COMMIT\n"));
}

fn pod_that_exceeds_the_read_limit_is_rebuilt_and_reported(kind: BackendKind) {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let pod = testbed.pod(7);
    // A Service that was deleted: only its route is left.
    let [web, gone] =
        [("web", 10), ("gone", 11)].map(|(name, number)| Service::new(name, number).ready(&[2]));
    pod.apply(kind, &KnownRules::Nothing, &rules(&pod, &[web.clone(), gone]));
    exceed_read_limit(&pod, kind);
    let object = object(&pod);
    runtime.set_sandbox(uid(&object), &pod.netns);
    let recording = Arc::new(RecordingBackend::new(kind));
    let driver = Driver::with_backend(
        &runtime,
        Arc::clone(&recording) as Arc<dyn Backend>,
        &[&web],
        &[&object],
    );
    let why = || {
        driver.state_of(&object)["why"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    until("the reason is reported", || {
        why().contains("replaced without being read")
            && why().contains("more memory than the attempt may use")
    });
    let at = web.at(Family::V4, 80);
    until("it is served", || {
        pod.run(|| matches!(probe(Protocol::Tcp, at), Outcome::Answered(..)))
    });
    let state = pod.state();
    assert!(
        !state.to_lowercase().contains("owners") && !state.contains("172.30.0.11"),
        "{state}"
    );
    // Both VIPs are rejected during the rebuild: one is not translated yet, the other still has a route.
    let rejected = recording.rejected_before_translation.lock().unwrap().clone();
    assert!(
        rejected.contains("172.30.0.10") && rejected.contains("172.30.0.11"),
        "{rejected}"
    );
    until("the condition is True again", || {
        driver.condition().holds && why().is_empty()
    });
}

/// A backend that records what was rejected when the first translation started.
struct RecordingBackend {
    backend: Box<dyn Backend>,
    rejected_before_translation: Mutex<String>,
    list: &'static [&'static str],
}

impl RecordingBackend {
    fn new(kind: BackendKind) -> Self {
        Self {
            backend: kind.backend(),
            rejected_before_translation: Mutex::default(),
            list: match kind {
                BackendKind::Nftables => &["nft", "list", "set", "ip", "multus-proxy", "vips"],
                BackendKind::IptablesNft => &["iptables-nft", "-t", "filter", "-S"],
                BackendKind::IptablesLegacy => &["iptables-legacy", "-t", "filter", "-S"],
            },
        }
    }

    /// Lists the rejected VIPs in the namespace of the calling thread.
    fn record(&self) {
        let mut rejected = self.rejected_before_translation.lock().unwrap();
        if rejected.is_empty() {
            let listed = Command::new(self.list[0])
                .args(&self.list[1..])
                .env("XTABLES_LOCKFILE", "/proc/self/ns/net")
                .output();
            *rejected = String::from_utf8(listed.unwrap().stdout).unwrap();
        }
    }
}

impl Backend for RecordingBackend {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn is_present(&self) -> Result<bool, Error> {
        self.backend.is_present()
    }

    fn reports_ruleset_changes(&self) -> bool {
        self.backend.reports_ruleset_changes()
    }

    fn fingerprint(&self) -> Option<u64> {
        self.backend.fingerprint()
    }

    fn dump(&self) -> Result<KernelState, Error> {
        self.backend.dump()
    }

    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.backend.reject(delta)
    }

    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.record();
        self.backend.translate(delta)
    }

    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.backend.unreject(delta)
    }

    fn remove_translation(&self) -> Result<(), Error> {
        self.backend.remove_translation()
    }

    fn remove_rejection(&self) -> Result<(), Error> {
        self.backend.remove_rejection()
    }
}

const LARGE_SUBPROCESS: &str = "MSP_LARGE_SUBPROCESS";

/// Ten with `make nightly`, because they take minutes.
fn large_pods() -> u8 {
    if std::env::var_os("MULTUS_SERVICE_LONG").is_some() {
        10
    } else {
        2
    }
}
const SERVICES: u16 = 10_000;

/// Like [`subprocess`].
#[test]
#[ignore = "started by ten_thousand_services_are_adopted_within_the_memory_budget"]
fn large_subprocess() {
    if std::env::var_os(LARGE_SUBPROCESS).is_none() {
        return;
    }
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let pods: Vec<_> = (0..large_pods()).map(|n| testbed.pod(10 + n)).collect();
    let objects: Vec<_> = pods.iter().map(object).collect();
    for (pod, object) in pods.iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let services: Vec<_> = (0..SERVICES).map(large_service).collect();
    let start = || {
        Driver::start(
            &runtime,
            BackendKind::Nftables,
            &services.iter().collect::<Vec<_>>(),
            &objects.iter().collect::<Vec<_>>(),
        )
    };
    let applied = |driver: &Driver| {
        let state = driver.state();
        let pods = state["pods"].as_array().unwrap();
        (
            pods.iter().filter(|pod| pod["progress"] == "Applied").count(),
            pods.clone(),
        )
    };
    let began = Instant::now();
    let driver = start();
    for n in 1..=pods.len() {
        until("the pods are programmed", || applied(&driver).0 >= n);
    }
    println!("programmed after {:?}: {:?}", began.elapsed(), Resources::now());
    driver.stop();
    let handles = || {
        pods.iter()
            .map(|pod| pod.sh("nft -a list tables"))
            .collect::<Vec<_>>()
    };
    let (before, tables, began) = (Resources::now(), handles(), Instant::now());
    Resources::reset_peak();
    let driver = start();
    for n in 1..=pods.len() {
        until("the pods are adopted", || applied(&driver).0 >= n);
    }
    println!(
        "adopted after {:?}: before {before:?}, after {:?}",
        began.elapsed(),
        Resources::now()
    );
    // A rebuilt table has another handle.
    assert_eq!(handles(), tables);
    assert!(
        Resources::now().peak_kib <= before.memory_kib + MAX_MORE_MEMORY_KIB,
        "{before:?}"
    );
}

/// An IPv4 Service with a TCP port and ten endpoints.
fn large_service(number: u16) -> Service {
    let address = (1 + number / 250, 1 + number % 250);
    Service {
        address: Some(address),
        spec: json!({"clusterIPs": [format!("172.30.{}.{}", address.0, address.1)]}),
        ports: vec![(Protocol::Tcp, 80, 8080)],
        ..Service::new(&format!("s{number}"), 0).ready(&[2, 3, 4, 5, 6, 7, 8, 9, 30, 31])
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn ten_thousand_services_are_adopted_within_the_memory_budget() {
    run_in_subprocess_with("memory_limits::large_subprocess", LARGE_SUBPROCESS, "1");
}

/// The memory of an iptables program grows with the pod's own rules and is charged to the proxy's container.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn iptables_that_exceeds_the_memory_budget_fails_only_its_own_pod() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _server = Server::start(&testbed.pod(2));
    let (untrusted, neighbour) = (testbed.pod(7), testbed.pod(8));
    let mut text = "*nat\n:OWNERS - [0:0]\n".to_owned();
    for n in 0..100_000_u32 {
        let address = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        writeln!(text, "-A OWNERS -d {address}/32 -p tcp -j RETURN").unwrap();
    }
    run_with_input(&untrusted, &["iptables-nft-restore"], &(text + "COMMIT\n"));
    let objects = [&untrusted, &neighbour].map(object);
    for (pod, object) in [&untrusted, &neighbour].into_iter().zip(&objects) {
        runtime.set_sandbox(uid(object), &pod.netns);
    }
    let web = Service::new("web", 10).ready(&[2]);
    let driver = Driver::start(&runtime, BackendKind::IptablesNft, &[&web], &objects.each_ref());
    let at = web.at(Family::V4, 80);
    until("the other pod is served", || {
        neighbour.run(|| matches!(probe(Protocol::Tcp, at), Outcome::Answered(..)))
    });
    until("the reason is reported", || {
        let state = driver.state_of(&objects[0]);
        state["progress"] == "Failing" && state["why"].as_str().unwrap_or_default().contains("iptables-nft")
    });
}
