//! One apiserver and one controller, the shipped binary under its shipped role, for the whole test binary; a namespace per test.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::names;
use e2e::apiserver::Apiserver;
use e2e::wait;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectList, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const SOON: Duration = Duration::from_secs(20);
const RBAC: &str = include_str!("../../rbac.yaml");
const ACCOUNT: &str = "multus-service-controller";

/// A running controller; it ends with this value and with the test process.
pub(crate) struct Controller {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) pid: u32,
    pub(crate) http: String,
    pub(crate) log: PathBuf,
}

impl Controller {
    /// Starts the shipped binary as `name` with a kubeconfig.
    pub(crate) fn start(kubeconfig: &Path, folder: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let http = format!(
            "127.0.0.1:{}",
            TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()
        );
        let log = folder.join(format!("{name}.log"));
        // The kernel kills the child with the *thread* that started it, so it gets a thread that lives as long as it.
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                env!("CARGO_BIN_EXE_multus-service-controller"),
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args([
                "--pod-name",
                name,
                "--http-address",
                &http,
                "--log-level",
                "info,controller=debug",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(child.id()));
            while matches!(
                stopped.recv_timeout(Duration::from_millis(50)),
                Err(mpsc::RecvTimeoutError::Timeout)
            ) {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        let pid = start.recv()??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            pid,
            http,
            log,
        })
    }

    /// Waits until /readyz says yes.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        wait::eventually(SOON, "the controller to become ready", async || {
            let ok = self
                .get("/readyz")
                .await
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
            Ok(ok.then_some(()))
        })
        .await
        .with_context(|| e2e::command::tail(&self.log, 20))
    }

    /// A page of its HTTP endpoints, headers included.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.http).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.pid.to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "signal {signal} could not be sent");
        Ok(())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The common server and controller.
pub(crate) struct Bed {
    pub(crate) server: &'static Apiserver,
    pub(crate) controller: Controller,
}

impl Bed {
    /// Started by the first caller.
    pub(crate) async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Bed> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || {
                let server = Apiserver::shared().await?;
                let kubeconfig = prepare(server).await?;
                let controller = Controller::start(
                    &kubeconfig,
                    server.folder(),
                    ACCOUNT,
                    &["--service-cidrs", "172.30.0.0/16,fd00:96::/112"],
                )?;
                controller.wait_ready().await?;
                Ok(Self { server, controller })
            })
            .await
    }

    /// A namespace with the network `testnet1`.
    pub(crate) async fn scene(&self, prefix: &str) -> Result<Scene> {
        Scene::new(self.server, prefix).await
    }
}

/// Installs what a cluster has before the controller runs; returns the controller's kubeconfig.
pub(crate) async fn prepare(server: &Apiserver) -> Result<PathBuf> {
    let client = server.client().await?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": names::NAMESPACE}}))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let crd: DynamicObject = serde_saphyr::from_str(include_str!("network-attachment-definition-crd.yaml"))?;
    let crds = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    ));
    Api::<DynamicObject>::all_with(client.clone(), &crds)
        .create(&PostParams::default(), &crd)
        .await?;
    for (name, zone) in [("node-1", "zone-a"), ("node-2", "zone-b")] {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}))?;
        let nodes: Api<Node> = Api::all(client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    grant(&client).await?;
    server.service_account_kubeconfig(names::NAMESPACE, ACCOUNT).await
}

async fn grant(client: &Client) -> Result<()> {
    let roles: Vec<Value> = serde_saphyr::from_multiple(RBAC)?;
    let subject = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": names::NAMESPACE}]);
    for role in roles {
        let kind = role["kind"].as_str().context("a role has no kind")?.to_owned();
        let meta = role["metadata"].clone();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]}, "subjects": subject,
        });
        for object in [role, binding] {
            let object: DynamicObject = serde_json::from_value(object)?;
            let kind = object
                .types
                .as_ref()
                .map(|types| types.kind.clone())
                .context("no kind")?;
            let resource =
                ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", &kind));
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            api.create(&PostParams::default(), &object).await?;
        }
    }
    Ok(())
}

/// One test's namespace.
pub(crate) struct Scene {
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl Scene {
    pub(crate) async fn new(server: &Apiserver, prefix: &str) -> Result<Self> {
        let scene = Self {
            namespace: server.namespace(prefix).await?,
            client: server.client().await?,
        };
        scene.network("testnet1").await?;
        Ok(scene)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn networks(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition"),
            "network-attachment-definitions",
        );
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    pub(crate) async fn network(&self, name: &str) -> Result<()> {
        let network = serde_json::from_value(
            json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name}, "spec": {"config": "{}"}}),
        )?;
        self.networks().create(&PostParams::default(), &network).await?;
        Ok(())
    }

    pub(crate) async fn delete_network(&self, name: &str) -> Result<()> {
        self.networks().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates a Service of ours on `testnet1` that selects `app: <name>`; `change` is merged over it.
    pub(crate) async fn service(&self, name: &str, change: Value) -> Result<Service> {
        let mut service = json!({
            "metadata": {
                "name": name,
                "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME},
                "annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet1"},
            },
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        });
        merge(&mut service, change);
        Ok(self
            .api::<Service>()
            .create(&PostParams::default(), &serde_json::from_value(service)?)
            .await?)
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Creates a running, ready pod `app: <app>` with addresses on `testnet1`.
    pub(crate) async fn pod(&self, name: &str, app: &str, addresses: &[&str]) -> Result<()> {
        self.bare_pod(
            name,
            app,
            json!({names::NETWORK_STATUS_ANNOTATION: self.status(addresses)}),
        )
        .await
    }

    pub(crate) async fn bare_pod(&self, name: &str, app: &str, annotations: Value) -> Result<()> {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}, "annotations": annotations},
            "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "localhost/none"}]},
        });
        self.api::<Pod>()
            .create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        self.pod_status(name, "True", "2026-01-01T00:00:00Z").await
    }

    /// The network-status of a pod with these addresses.
    pub(crate) fn status(&self, addresses: &[&str]) -> String {
        json!([
            {"name": "cluster-net", "interface": "eth0", "ips": ["10.128.0.5"], "default": true, "dns": {}},
            {"name": format!("{}/testnet1", self.namespace), "interface": "net1", "ips": addresses, "dns": {}},
        ])
        .to_string()
    }

    pub(crate) async fn pod_status(&self, name: &str, ready: &str, since: &str) -> Result<()> {
        let status = json!({"status": {"phase": "Running", "podIP": "10.128.0.5", "podIPs": [{"ip": "10.128.0.5"}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]}});
        self.api::<Pod>()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> Result<()> {
        self.api::<Pod>()
            .delete(name, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }

    /// Our slices of a Service.
    pub(crate) async fn slices(&self, service: &str) -> Result<Vec<EndpointSlice>> {
        let selector = format!(
            "{}={service},{}={}",
            names::SERVICE_NAME_LABEL,
            names::MANAGED_BY_LABEL,
            names::MANAGED_BY
        );
        let list: ObjectList<EndpointSlice> =
            self.api().list(&ListParams::default().labels(&selector)).await?;
        Ok(list.items)
    }

    /// Waits until the slices of a Service are as wanted.
    pub(crate) async fn slices_until(
        &self,
        service: &str,
        what: &str,
        wanted: impl Fn(&[EndpointSlice]) -> bool,
    ) -> Result<Vec<EndpointSlice>> {
        let mut last = Vec::new();
        let found = wait::eventually(SOON, what, async || {
            last = self.slices(service).await?;
            Ok(wanted(&last).then(|| last.clone()))
        })
        .await;
        found.with_context(|| {
            format!(
                "the slices are {}",
                serde_json::to_string_pretty(&summary(&last)).unwrap_or_default()
            )
        })
    }

    /// Waits until the addresses of all slices together are these, and each is ready or not as given.
    pub(crate) async fn endpoints_until(
        &self,
        service: &str,
        wanted: &[(&str, bool)],
    ) -> Result<Vec<EndpointSlice>> {
        let mut wanted: Vec<_> = wanted.iter().map(|(a, r)| ((*a).to_owned(), *r)).collect();
        wanted.sort();
        self.slices_until(service, &format!("{service} to have {wanted:?}"), |slices| {
            !slices.is_empty() && endpoints(slices) == wanted
        })
        .await
    }

    pub(crate) async fn events(&self, service: &str) -> Result<Vec<Event>> {
        let list = self.api::<Event>().list(&ListParams::default()).await?;
        let regards =
            |event: &Event| event.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(service);
        Ok(list.items.into_iter().filter(regards).collect())
    }

    /// Waits for a Warning on a Service.
    pub(crate) async fn event_until(&self, service: &str, reason: &str) -> Result<Event> {
        let mut last = Vec::new();
        let found = wait::eventually(SOON, &format!("event {reason} on {service}"), async || {
            last = self.events(service).await?;
            Ok(last
                .iter()
                .find(|event| event.reason.as_deref() == Some(reason))
                .cloned())
        })
        .await;
        found.with_context(|| {
            format!(
                "the events are {:?}",
                last.iter().map(|e| (&e.reason, &e.note)).collect::<Vec<_>>()
            )
        })
    }

    /// Waits until the Accepted condition is `status` with `reason`.
    pub(crate) async fn accepted_until(&self, service: &str, status: &str, reason: &str) -> Result<()> {
        let mut last = None;
        let found = wait::eventually(
            SOON,
            &format!("Accepted={status} ({reason}) on {service}"),
            async || {
                let service = self.api::<Service>().get(service).await?;
                last = controller::condition::current(&service).cloned();
                Ok(last
                    .as_ref()
                    .filter(|c| c.status == status && c.reason == reason)
                    .map(drop))
            },
        )
        .await;
        found.with_context(|| format!("the condition is {last:?}"))
    }

    /// Waits until the Service has no condition of ours.
    pub(crate) async fn accepted_gone(&self, service: &str) -> Result<()> {
        wait::eventually(SOON, &format!("no Accepted condition on {service}"), async || {
            let service = self.api::<Service>().get(service).await?;
            Ok(controller::condition::current(&service).is_none().then_some(()))
        })
        .await
    }
}

/// Every address with its readiness, sorted.
pub(crate) fn endpoints(slices: &[EndpointSlice]) -> Vec<(String, bool)> {
    let mut all: Vec<_> = slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .map(|endpoint| {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|c| c.ready)
                .unwrap_or_default();
            (endpoint.addresses.join(","), ready)
        })
        .collect();
    all.sort();
    all
}

fn summary(slices: &[EndpointSlice]) -> Vec<Value> {
    let one = |slice: &EndpointSlice| json!({"name": slice.metadata.name, "type": slice.address_type, "ports": slice.ports, "endpoints": slice.endpoints});
    slices.iter().map(one).collect()
}

/// Merges `change` over `object` (RFC 7386).
pub(crate) fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    object.remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (object, change) => *object = change,
    }
}
