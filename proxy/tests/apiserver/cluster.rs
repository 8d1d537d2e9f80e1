//! A node on a real API server, whose pods are namespaces of the test bed.

use crate::testbed::{Pod, Testbed};
use anyhow::{Context as _, Result};
use api::names::{LAST_CHANGE_TRIGGER_TIME_ANNOTATION, PROXY, RULES_APPLIED_CONDITION};
use api::{NetworkRef, ObjectName};
use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{self, Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use process::events::Publisher;
use process::traces::Traces;
use prometheus_client::registry::Registry;
use proxy::args::BackendChoice;
use proxy::backend::detect::choose;
use proxy::container_runtime::{self, Sandbox, SandboxSource};
use proxy::metrics::Metrics;
use proxy::report::node_condition::{self, OwnPod};
use proxy::sync::{self, Context, Reporters};
use proxy::watch::ServiceCidrs;
use proxy::{debug_state, watch};
use rules::{Node, Settings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use testbed::apiserver::{Apiserver, Options};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const NODE: &str = "node-a";
pub(crate) const ACCOUNT: &str = "system:serviceaccount:multus-service:multus-service-proxy";

/// Sandboxes that the kubelet would have created.
#[derive(Clone, Default)]
pub(crate) struct Sandboxes {
    by_uid: Arc<Mutex<BTreeMap<String, String>>>,
    /// Runtime handlers by sandbox, if not the default.
    pub(crate) handlers: Arc<Mutex<BTreeMap<String, String>>>,
}

#[async_trait]
impl SandboxSource for Sandboxes {
    async fn ready(&self) -> Result<BTreeSet<String>, container_runtime::Error> {
        Ok(self.by_uid.lock().unwrap().values().cloned().collect())
    }

    async fn of_pod(&self, uid: &str, _: &ObjectName) -> Result<Sandbox, container_runtime::Error> {
        let id = self
            .by_uid
            .lock()
            .unwrap()
            .get(uid)
            .cloned()
            .ok_or(container_runtime::Error::NotReady)?;
        Ok(Sandbox {
            netns: self.netns(&id).await?,
            runtime_handler: self
                .handlers
                .lock()
                .unwrap()
                .get(&id)
                .cloned()
                .unwrap_or_default(),
            id,
        })
    }

    async fn netns(&self, id: &str) -> Result<PathBuf, container_runtime::Error> {
        Ok(PathBuf::from(format!("/run/netns/{id}")))
    }
}

/// An API server for one test, so that its audit log contains this proxy only.
pub(crate) struct Cluster {
    pub(crate) server: Apiserver,
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) testbed: Testbed,
}

/// A proxy running under its shipped role.
pub(crate) struct Proxy {
    health: process::Health,
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
}

/// An API server with the proxy's account, its shipped role, and the policies that confine it.
pub(crate) async fn server_with_roles() -> Result<Apiserver> {
    let server = Apiserver::start(Options::default()).await?;
    grant(&server.client().await?).await?;
    Ok(server)
}

async fn grant(admin: &Client) -> Result<()> {
    let account: ServiceAccount =
        object(json!({"metadata": {"name": "multus-service-proxy", "namespace": "multus-service"}}));
    create(
        Api::all(admin.clone()),
        &object::<Namespace>(json!({"metadata": {"name": "multus-service"}})),
    )
    .await?;
    create(Api::namespaced(admin.clone(), "multus-service"), &account).await?;
    let role: ClusterRole = serde_saphyr::from_str(include_str!("../../../config/rbac/proxy_role.yaml"))?;
    create(Api::all(admin.clone()), &role).await?;
    let binding: ClusterRoleBinding = object(json!({
        "metadata": {"name": "multus-service-proxy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "multus-service-proxy"},
        "subjects": [{"kind": "ServiceAccount", "name": "multus-service-proxy", "namespace": "multus-service"}],
    }));
    create(Api::all(admin.clone()), &binding).await?;
    apply_policy(
        admin,
        include_str!("../../../operator/manifests/admission-proxy-status.yaml"),
    )
    .await?;
    apply_policy(
        admin,
        include_str!("../../../operator/manifests/admission-events.yaml"),
    )
    .await?;
    Ok(())
}

impl Cluster {
    pub(crate) async fn start() -> Result<Self> {
        let server = server_with_roles().await?;
        let admin = server.client().await?;
        let namespace = server.namespace("web").await?;
        Ok(Self {
            server,
            admin,
            namespace,
            sandboxes: Sandboxes::default(),
            testbed: Testbed::new(),
        })
    }

    /// Starts a proxy in its Pod `proxy`, which is created if missing.
    pub(crate) async fn proxy(&self) -> Result<Proxy> {
        self.traced_proxy(Traces::default()).await
    }

    /// Like [`Self::proxy`], with traces.
    pub(crate) async fn traced_proxy(&self, traces: Traces) -> Result<Proxy> {
        let own = self.proxy_pod("proxy").await?;
        let client = self.server.pod_client(&own).await?;
        let (event_sender, events) = process::events::channel();
        let (reporter, condition) = node_condition::channel();
        let existing_sandboxes = self.sandboxes.ready().await?;
        let metrics = Metrics::new(&mut Registry::default());
        let backend = choose(BackendChoice::IpTables)?;
        let reporters = Reporters {
            event_sender: event_sender.into(),
            reporter,
            metrics,
        };
        let mut context = Context::new(
            Arc::new(self.sandboxes.clone()),
            backend,
            existing_sandboxes,
            reporters,
            Settings {
                node: Node {
                    name: NODE.to_owned(),
                    zone: None,
                },
                ..Settings::default()
            },
        );
        context.traces = traces;
        let (health, shutdown) = (process::Health::new(), CancellationToken::new());
        let (_, state_requests) = debug_state::endpoint();
        let driver = {
            let (health, shutdown) = (health.clone(), shutdown.clone());
            tokio::spawn(async move {
                let updates = watch::updates(&client, NODE, ServiceCidrs::Watched);
                let own = OwnPod {
                    namespace: own.namespace().unwrap_or_default(),
                    name: own.name_any(),
                };
                tokio::join!(
                    sync::run(context, updates, state_requests, health, shutdown),
                    events.run(Publisher::new(client.clone(), PROXY, NODE)),
                    condition.run(client.clone(), Some(own))
                );
            })
        };
        Ok(Proxy {
            health,
            shutdown,
            driver,
        })
    }

    /// A Pod of the proxy's DaemonSet, on this node.
    pub(crate) async fn proxy_pod(&self, name: &str) -> Result<v1::Pod> {
        let api: Api<v1::Pod> = Api::namespaced(self.admin.clone(), "multus-service");
        if let Some(pod) = api.get_opt(name).await? {
            return Ok(pod);
        }
        let manifest = json!({
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "multus-service-proxy"}},
            "spec": {
                "nodeName": NODE, "serviceAccountName": "multus-service-proxy", "hostNetwork": true,
                "containers": [{"name": "proxy", "image": "none"}],
            },
        });
        create(api, &object(manifest)).await
    }

    /// Returns reason, status and message of the condition on the Pod `proxy`.
    pub(crate) async fn condition(&self) -> Result<[String; 3]> {
        let api: Api<v1::Pod> = Api::namespaced(self.admin.clone(), "multus-service");
        let conditions = api
            .get("proxy")
            .await?
            .status
            .and_then(|status| status.conditions);
        let condition = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == RULES_APPLIED_CONDITION);
        Ok(condition.map_or_else(Default::default, |condition| {
            [
                condition.reason.unwrap_or_default(),
                condition.status,
                condition.message.unwrap_or_default(),
            ]
        }))
    }

    /// Creates an attached pod on this node: its Pod object and its namespace.
    pub(crate) async fn attached_pod(&mut self, host: u8, status: &str) -> Result<Pod> {
        self.attached_pod_with(host, status, json!({}), "").await
    }

    /// Like [`Self::attached_pod`], with labels and a runtime handler.
    pub(crate) async fn attached_pod_with(
        &mut self,
        host: u8,
        status: &str,
        labels: Value,
        handler: &str,
    ) -> Result<Pod> {
        let pod = self.testbed.pod(host);
        let handlers = &self.sandboxes.handlers;
        handlers
            .lock()
            .unwrap()
            .insert(pod.netns.clone(), handler.to_owned());
        let manifest = json!({
            "metadata": {"name": format!("client-{host}"), "labels": labels, "annotations": {"k8s.v1.cni.cncf.io/network-status": status}},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}]},
        });
        let api: Api<v1::Pod> = Api::namespaced(self.admin.clone(), &self.namespace);
        let created = create(api, &object(manifest)).await?;
        self.sandboxes
            .by_uid
            .lock()
            .unwrap()
            .insert(created.uid().context("uid")?, pod.netns.clone());
        Ok(pod)
    }

    /// network-status as Multus writes it for a pod on macvlan1.
    pub(crate) fn status(&self, host: u8) -> String {
        json!([
            {"name": "cbr0", "interface": "eth0", "ips": [format!("10.128.0.{host}")], "default": true},
            {"name": format!("{}/macvlan1", self.namespace), "interface": "net1", "ips": [format!("10.1.0.{host}")]},
        ])
        .to_string()
    }

    pub(crate) async fn service(&self, name: &str, network: &str) -> Result<Service> {
        let manifest = json!({
            "metadata": {
                "name": name, "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
                "annotations": {"k8s.v1.cni.cncf.io/service-network": network},
            },
            "spec": {"ports": [{"name": "http", "port": 80}]},
        });
        create(
            Api::namespaced(self.admin.clone(), &self.namespace),
            &object(manifest),
        )
        .await
    }

    /// Applies a slice as the controller writes it.
    pub(crate) async fn labelled_slice(&self, service: &Service, network: &str, hosts: &[u8]) -> Result<()> {
        let network = NetworkRef::parse(network, &self.namespace)?.label_value();
        self.slice_with(
            service,
            hosts,
            json!({"multusservice.cni.cncf.io/network": network}),
            json!({}),
        )
        .await
    }

    /// Applies a slice with the time of the change that led to it.
    pub(crate) async fn triggered_slice(&self, service: &Service, hosts: &[u8], at: &str) -> Result<()> {
        let annotations = json!({ LAST_CHANGE_TRIGGER_TIME_ANNOTATION: at });
        self.slice_with(service, hosts, json!({}), annotations).await
    }

    /// Applies a slice without the network label, as the archived multus-service controller and earlier releases write it.
    pub(crate) async fn slice(&self, service: &Service, hosts: &[u8]) -> Result<()> {
        self.slice_with(service, hosts, json!({}), json!({})).await
    }

    async fn slice_with(
        &self,
        service: &Service,
        hosts: &[u8],
        more: Value,
        annotations: Value,
    ) -> Result<()> {
        let endpoints: Vec<_> = hosts
            .iter()
            .map(|host| json!({"addresses": [format!("10.1.0.{host}")]}))
            .collect();
        let name = format!("{}-multus-a", service.name_any());
        let mut labels = json!({
            "service.kubernetes.io/service-proxy-name": "multus-proxy", "kubernetes.io/service-name": service.name_any(),
            "endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io",
        });
        let more = more.as_object().cloned().unwrap_or_default();
        labels.as_object_mut().context("labels")?.extend(more);
        let manifest = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service.name_any(), "uid": service.uid()}],
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
        });
        let api: Api<EndpointSlice> = Api::namespaced(self.admin.clone(), &self.namespace);
        api.patch(
            &name,
            &PatchParams::apply("controller").force(),
            &Patch::Apply(manifest),
        )
        .await?;
        Ok(())
    }

    /// Requests of the proxy to the API server so far.
    pub(crate) fn requests(&self) -> Result<Vec<Value>> {
        let mut requests = self.server.audit_log().events()?;
        requests.retain(|request| request["user"]["username"] == ACCOUNT);
        Ok(requests)
    }
}

impl Proxy {
    pub(crate) fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(tokio::time::timeout(std::time::Duration::from_secs(15), self.driver).await??)
    }
}

/// Creates a policy and its binding.
pub(crate) async fn apply_policy(admin: &Client, manifest: &str) -> Result<()> {
    let (policy, binding) = manifest.split_once("\n---\n").context("two documents")?;
    let policy: ValidatingAdmissionPolicy = serde_saphyr::from_str(policy)?;
    let binding: ValidatingAdmissionPolicyBinding = serde_saphyr::from_str(binding)?;
    create(Api::all(admin.clone()), &policy).await?;
    create(Api::all(admin.clone()), &binding).await?;
    Ok(())
}

pub(crate) fn object<K: DeserializeOwned>(manifest: Value) -> K {
    serde_json::from_value(manifest).unwrap()
}

pub(crate) async fn create<K>(api: Api<K>, object: &K) -> Result<K>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    Ok(api.create(&PostParams::default(), object).await?)
}
