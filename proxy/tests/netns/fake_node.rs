//! The driver of a node with a scripted cluster and a scripted container runtime; everything else, above all the kernel, is real.
//!
//! For conditions that a real cluster cannot provide quickly: hundreds of pods, a hanging runtime, untrusted neighbours.

use super::matrix::BackendKind;
use super::objects::Service;
use super::testbed::Pod;
use api::ObjectName;
use async_trait::async_trait;
use futures::stream;
use k8s_openapi::api::core::v1;
use process::watch::Change;
use prometheus_client::registry::Registry;
use proxy::backend::Backend;
use proxy::backend::detect::taking_over;
use proxy::container_runtime::{self, Sandbox, SandboxSource};
use proxy::debug_state;
use proxy::index::{NodePod, Update};
use proxy::metrics::Metrics;
use proxy::report::node_condition::{self, NodeCondition, Reporter};
use proxy::sync::{self, Context, Reporters};
use rules::{ServedService, Settings, Slice};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Timeout of the CRI client.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for conditions that take milliseconds on an idle machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A scripted container runtime.
pub(crate) struct FakeRuntime {
    sandboxes: Mutex<BTreeMap<String, Sandbox>>,
    is_hanging: watch::Sender<bool>,
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            sandboxes: Mutex::default(),
            is_hanging: watch::channel(false).0,
        })
    }

    /// Sets or replaces the ready sandbox of a pod.
    pub(crate) fn set_sandbox(&self, uid: &str, netns: &str) {
        let sandbox = Sandbox {
            id: format!("sandbox-{netns}"),
            netns: PathBuf::from(format!("/run/netns/{netns}")),
            runtime_handler: String::new(),
        };
        self.sandboxes.lock().unwrap().insert(uid.to_owned(), sandbox);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.sandboxes.lock().unwrap().remove(uid);
    }

    /// Suspends or resumes the runtime, like SIGSTOP and SIGCONT.
    pub(crate) fn set_hanging(&self, is_hanging: bool) {
        self.is_hanging.send_replace(is_hanging);
    }

    async fn wait_while_hanging(&self) -> Result<(), container_runtime::Error> {
        let mut is_hanging = self.is_hanging.subscribe();
        let answered =
            tokio::time::timeout(CALL_TIMEOUT, is_hanging.wait_for(|is_hanging| !is_hanging)).await;
        let in_time = answered.map(|_| ());
        in_time
            .map_err(|_| container_runtime::Error::Runtime("ListPodSandbox: no answer within 5 s".to_owned()))
    }
}

#[async_trait]
impl SandboxSource for FakeRuntime {
    async fn ready(&self) -> Result<BTreeSet<String>, container_runtime::Error> {
        self.wait_while_hanging().await?;
        let sandboxes = self.sandboxes.lock().unwrap();
        Ok(sandboxes.values().map(|sandbox| sandbox.id.clone()).collect())
    }

    /// Also checks the pod's name, which follows "uid-" in these tests.
    async fn of_pod(&self, uid: &str, name: &ObjectName) -> Result<Sandbox, container_runtime::Error> {
        self.wait_while_hanging().await?;
        let matches_name = uid.strip_prefix("uid-") == Some(&name.name);
        let found = self.sandboxes.lock().unwrap().get(uid).cloned();
        let found = found.filter(|_| matches_name);
        found.ok_or(container_runtime::Error::NotReady)
    }

    async fn netns(&self, id: &str) -> Result<PathBuf, container_runtime::Error> {
        self.wait_while_hanging().await?;
        let sandboxes = self.sandboxes.lock().unwrap();
        let found = sandboxes.values().find(|sandbox| sandbox.id == id);
        found
            .map(|sandbox| sandbox.netns.clone())
            .ok_or(container_runtime::Error::NotReady)
    }
}

/// An update of a watch, or a pause until the sender is dropped.
enum Message {
    Update(Box<Update>),
    Pause(std::sync::mpsc::Receiver<()>),
}

/// A running driver.
pub(crate) struct Driver {
    updates: mpsc::UnboundedSender<Message>,
    health: process::Health,
    reporter: Reporter,
    registry: Registry,
    state: axum::Router,
    client_runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts a driver with these objects as the initial lists.
    pub(crate) fn start(
        runtime: &Arc<FakeRuntime>,
        kind: BackendKind,
        services: &[&Service],
        pods: &[&v1::Pod],
    ) -> Self {
        Self::with_backend(runtime, taking_over(kind.backend().into()), services, pods)
    }

    pub(crate) fn with_backend(
        runtime: &Arc<FakeRuntime>,
        backend: Arc<dyn Backend>,
        services: &[&Service],
        pods: &[&v1::Pod],
    ) -> Self {
        let (updates, receiver) = mpsc::unbounded_channel();
        let (reporter, _) = node_condition::channel();
        let (health, shutdown) = (process::Health::new(), CancellationToken::new());
        let (state, state_requests) = debug_state::endpoint();
        let mut registry = Registry::default();
        let reporters = Reporters {
            event_sender: process::events::channel().0.into(),
            reporter: reporter.clone(),
            metrics: Metrics::new(&mut registry),
        };
        let run = {
            let (runtime, health, shutdown) = (Arc::clone(runtime), health.clone(), shutdown.clone());
            async move {
                let existing_sandboxes = runtime.ready().await.unwrap();
                let context = Context::new(
                    runtime,
                    backend,
                    existing_sandboxes,
                    reporters,
                    Settings::default(),
                );
                let updates = stream::unfold(receiver, next_update);
                // The driver outlives its watches, which never end.
                let updates = futures::StreamExt::chain(updates, stream::pending());
                sync::run(context, updates, state_requests, health, shutdown).await;
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.unwrap().block_on(run);
        });
        let driver = Self {
            updates,
            health,
            reporter,
            registry,
            state,
            client_runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            shutdown,
            thread: Some(thread),
        };
        let parsed = services.iter().map(|service| parsed(service)).collect();
        let slices = services.iter().flat_map(|service| slices(service)).collect();
        driver.send(Update::Service(Change::Reset(parsed)));
        driver.send(Update::Slice(Change::Reset(slices)));
        driver.send(Update::Node(Change::Reset(Vec::new())));
        driver.send(Update::ServiceCidr(Change::Reset(Vec::new())));
        driver.send(Update::Pod(Change::Reset(
            pods.iter().map(|pod| read(pod)).collect(),
        )));
        driver
    }

    fn send(&self, update: Update) {
        let sent = self.updates.send(Message::Update(Box::new(update)));
        sent.unwrap_or_else(|_| panic!("the driver ended"));
    }

    /// Runs `work` while the driver's loop is paused, as on an overloaded node.
    pub(crate) fn while_paused<T>(&self, work: impl FnOnce() -> T) -> T {
        let (_release, held) = std::sync::mpsc::channel();
        let sent = self.updates.send(Message::Pause(held));
        sent.unwrap_or_else(|_| panic!("the driver ended"));
        work()
    }

    /// Adds or updates a Service and its slices.
    pub(crate) fn service(&self, service: &Service) {
        self.send(Update::Service(Change::Apply(parsed(service))));
        for slice in slices(service) {
            self.send(Update::Slice(Change::Apply(slice)));
        }
    }

    /// Deletes a Service.
    pub(crate) fn delete_service(&self, service: &Service) {
        self.send(Update::Service(Change::Delete(parsed(service).0)));
    }

    /// Updates a pod with an object that cannot be decoded.
    pub(crate) fn undecodable_pod(&self, pod: &v1::Pod) {
        let uid = uid(pod).to_owned();
        let unreadable = NodePod::Unreadable { uid: uid.clone() };
        self.send(Update::Pod(Change::Apply((uid, Some(unreadable)))));
    }

    /// Adds or updates a pod.
    pub(crate) fn pod(&self, pod: &v1::Pod) {
        self.send(Update::Pod(Change::Apply(read(pod))));
    }

    /// Maps a network to an interface of the node that runs the test.
    pub(crate) fn map(&self, mapped: &str) {
        let updates = proxy::netns::host_network::updates(vec![mapped.parse().unwrap()]);
        let first = self.client_runtime.block_on(async {
            let mut updates = std::pin::pin!(updates);
            futures::StreamExt::next(&mut updates).await
        });
        self.send(first.unwrap());
    }

    /// Deletes a pod.
    pub(crate) fn delete_pod(&self, pod: &v1::Pod) {
        self.send(Update::Pod(Change::Delete(uid(pod).to_owned())));
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.health.is_alive()
    }

    pub(crate) fn condition(&self) -> NodeCondition {
        self.reporter.current()
    }

    /// Sum of the samples of a metric at `/metrics`, over all labels that `name` does not have.
    pub(crate) fn metric(&self, name: &str) -> u32 {
        self.samples(name).reduce(|sum, value| sum + value).unwrap()
    }

    /// Value of a metric that has one sample, in seconds.
    pub(crate) fn seconds(&self, name: &str) -> f64 {
        self.samples(name).next().unwrap()
    }

    fn samples<T: FromStr<Err: Debug>>(&self, name: &str) -> impl Iterator<Item = T> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let samples = text.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter(|rest| rest.starts_with([' ', '{']));
        let values = samples.map(|rest| rest.rsplit(' ').next().unwrap().parse().unwrap());
        values.collect::<Vec<_>>().into_iter()
    }

    /// Content of `/state`.
    pub(crate) fn state(&self) -> Value {
        let mut router = self.state.clone();
        self.client_runtime.block_on(async {
            let request = axum::http::Request::get("/state")
                .body(axum::body::Body::empty())
                .unwrap();
            let response = tower::Service::call(&mut router, request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            serde_json::from_slice(&body.unwrap()).unwrap()
        })
    }

    /// Content of `/state` for one pod.
    pub(crate) fn state_of(&self, pod: &v1::Pod) -> Value {
        let state = self.state();
        let uid = pod.metadata.uid.as_deref();
        let mut pods = state["pods"].as_array().into_iter().flatten();
        pods.find(|pod| pod["uid"].as_str() == uid)
            .cloned()
            .unwrap_or_default()
    }

    /// Shuts the driver down, as SIGTERM does.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
    }
}

async fn next_update(
    mut receiver: mpsc::UnboundedReceiver<Message>,
) -> Option<(Update, mpsc::UnboundedReceiver<Message>)> {
    loop {
        match receiver.recv().await? {
            Message::Update(update) => return Some((*update, receiver)),
            // Returns an error when the sender is dropped.
            Message::Pause(held) => drop(held.recv()),
        }
    }
}

fn parsed(service: &Service) -> (ObjectName, Result<ServedService, rules::NotServed>) {
    let name = ObjectName {
        namespace: "web".to_owned(),
        name: service.name.clone(),
    };
    (name, ServedService::parse(&service.object()))
}

fn slices(service: &Service) -> Vec<(ObjectName, Option<Slice>)> {
    let read = |slice| {
        let slice = Slice::parse(slice).unwrap();
        (slice.name.clone(), Some(slice))
    };
    service.slice_objects().iter().map(read).collect()
}

fn read(pod: &v1::Pod) -> (String, Option<NodePod>) {
    (pod.metadata.uid.clone().unwrap(), NodePod::parse(pod))
}

/// The Pod object of a pod, with the annotation that Multus writes.
pub(crate) fn object(pod: &Pod) -> v1::Pod {
    let interfaces = pod.status.iter().map(
        |status| json!({"name": status.network, "interface": status.interface, "ips": status.addresses}),
    );
    object_with(pod, &interfaces.collect::<Value>().to_string())
}

/// Like [`object`], with this annotation.
pub(crate) fn object_with(pod: &Pod, network_status: &str) -> v1::Pod {
    let object = json!({
        "metadata": {
            "name": pod.netns, "namespace": "web", "uid": format!("uid-{}", pod.netns),
            "annotations": {"k8s.v1.cni.cncf.io/network-status": network_status},
        },
        "spec": {"containers": []},
        "status": {"podIP": format!("10.128.0.{}", pod.host)},
    });
    serde_json::from_value(object).unwrap()
}

/// The UID of a Pod object.
pub(crate) fn uid(pod: &v1::Pod) -> &str {
    pod.metadata.uid.as_ref().unwrap()
}

/// Waits for a condition.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    within(TIMEOUT, what, holds);
}

/// Waits until the namespace of a deleted pod is released. The kernel removes namespaces one by one, including those of other tests.
pub(crate) fn until_gone(is_gone: impl FnMut() -> bool) {
    within(3 * TIMEOUT, "deleted namespaces are released", is_gone);
}

fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "timed out after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
