//! One test's namespace, and what `explain` says there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::ObjectName;
use api::names;
use cli::chain::{Link, State};
use cli::explain::{Explanation, explain};
use cli::facts::{self, Reader};
use cli::render::Report as _;
use cli::situations::{Cause, matches};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde_json::{Value, json};
use testbed::apiserver::Apiserver;
use testbed::wait;

use super::{SOON, merge, shared};

/// One test's namespace, with the network `testnet1`.
pub(crate) struct Scene {
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl Scene {
    /// On the common server.
    pub(crate) async fn new(prefix: &str) -> Result<Self> {
        let scene = Self::bare(shared().await?, prefix).await?;
        scene.network("testnet1").await?;
        Ok(scene)
    }

    /// Without any network.
    pub(crate) async fn bare(server: &Apiserver, prefix: &str) -> Result<Self> {
        Ok(Self {
            namespace: server.namespace(prefix).await?,
            client: server.client().await?,
        })
    }

    pub(crate) fn key(&self, name: &str) -> ObjectName {
        ObjectName::new(&self.namespace, name)
    }

    async fn create<K>(&self, object: Value) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::Serialize
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        api.create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
        Ok(())
    }

    pub(crate) async fn network(&self, name: &str) -> Result<()> {
        let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
        let kind = ApiResource::from_gvk_with_plural(&kind, "network-attachment-definitions");
        let object: DynamicObject = serde_json::from_value(
            json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name}, "spec": {"config": "{}"}}),
        )?;
        let api = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        wait::eventually(SOON, "the kind to be served", async || {
            Ok(Some(api.create(&PostParams::default(), &object).await?))
        })
        .await?;
        Ok(())
    }

    /// A labeled Service `web` on `testnet1` that selects `app: web`; `change` is merged over it.
    pub(crate) async fn service(&self, change: Value) -> Result<()> {
        let mut service = json!({
            "metadata": {
                "name": "web",
                "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME},
                "annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet1"},
            },
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        });
        merge(&mut service, change);
        self.create::<Service>(service).await
    }

    /// A slice of `web` as its author would write it; `change` is merged over it.
    pub(crate) async fn slice(&self, change: Value) -> Result<()> {
        let mut slice = json!({
            "metadata": {"name": "web-by-hand", "labels": {names::SERVICE_NAME_LABEL: "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [],
        });
        merge(&mut slice, change);
        self.create::<EndpointSlice>(slice).await
    }

    /// A running, ready pod on `node-1` with label `app: web` and addresses on `testnet1`.
    pub(crate) async fn pod(&self, name: &str, addresses: &[&str]) -> Result<()> {
        self.any_pod(
            name,
            "web",
            &self.attached("testnet1", addresses),
            json!({}),
            "True",
        )
        .await
    }

    /// A client on a node, with addresses on `testnet1`.
    pub(crate) async fn client_on(&self, node: &str, addresses: &[&str]) -> Result<()> {
        let status = self.attached("testnet1", addresses);
        self.any_pod("client", "client", &status, json!({"nodeName": node}), "True")
            .await
    }

    /// A pod with a network-status of any text.
    pub(crate) async fn any_pod(
        &self,
        name: &str,
        app: &str,
        status: &str,
        spec: Value,
        ready: &str,
    ) -> Result<()> {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": app}, "annotations": {names::NETWORK_STATUS_ANNOTATION: status}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "localhost/none"}]},
        });
        merge(&mut pod["spec"], spec);
        self.create::<Pod>(pod).await?;
        let status = json!({"status": {"phase": "Running", "podIP": "10.128.0.5", "podIPs": [{"ip": "10.128.0.5"}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// What Multus writes for one interface on a network of this namespace.
    pub(crate) fn attached(&self, network: &str, addresses: &[&str]) -> String {
        status(&format!("{}/{network}", self.namespace), addresses)
    }

    /// What `explain` says of `web` now, for an administrator.
    pub(crate) async fn explain(&self, from: Option<&ObjectName>) -> Explanation {
        let reader = Reader::new(self.client.clone(), Duration::from_secs(30));
        let key = self.key("web");
        explain(&facts::explain(&reader, &key, from).await, &key)
    }

    /// Waits until `explain` breaks off at a cause, and compares what it says with the table.
    pub(crate) async fn breaks(&self, cause: Cause) -> Result<Link> {
        self.says(cause, State::Broken, None).await
    }

    /// Waits until `explain` warns of a cause and nothing is broken.
    pub(crate) async fn warns(&self, cause: Cause) -> Result<Link> {
        self.says(cause, State::Warning, None).await
    }

    /// The same from the side of the pod `client`.
    pub(crate) async fn breaks_from_client(&self, cause: Cause) -> Result<Link> {
        self.says(cause, State::Broken, Some(&self.key("client"))).await
    }

    /// The same from the side of the pod `client`.
    pub(crate) async fn warns_from_client(&self, cause: Cause) -> Result<Link> {
        self.says(cause, State::Warning, Some(&self.key("client"))).await
    }

    /// The same from the side of any pod.
    pub(crate) async fn says(&self, cause: Cause, state: State, from: Option<&ObjectName>) -> Result<Link> {
        let mut last = String::new();
        let found = wait::eventually(SOON, &format!("explain to say {cause:?}"), async || {
            let explanation = self.explain(from).await;
            last = explanation.text();
            let is_expected = state == State::Broken || explanation.is_well();
            let mut links = explanation.chain.links.into_iter().filter(|_| is_expected);
            Ok(links.find(|link| link.cause == Some(cause) && link.state == state))
        })
        .await;
        let link = found.with_context(|| last.clone())?;
        let template = cause.situation().says;
        ensure!(
            matches(template, &link.says),
            "{:?} is not what the table has: {template:?}",
            link.says
        );
        ensure!(link.topic == cause.situation().topic, "{link:?}");
        let remedy = link.remedy.as_ref().context("no remedy")?;
        ensure!(
            remedy.commands.iter().all(|command| !command.contains("{n")),
            "a place is empty: {remedy:?}"
        );
        Ok(link)
    }

    /// Waits until nothing is wrong at all.
    pub(crate) async fn is_well(&self, from: Option<&ObjectName>) -> Result<Explanation> {
        let mut last = String::new();
        let found = wait::eventually(SOON, "explain to say that nothing is wrong", async || {
            let explanation = self.explain(from).await;
            last = explanation.text();
            Ok((explanation.chain.state() == State::Good).then_some(explanation))
        })
        .await;
        found.with_context(|| last.clone())
    }
}

/// What Multus writes for one interface on a network.
pub(crate) fn status(network: &str, addresses: &[&str]) -> String {
    json!([{"name": network, "interface": "net1", "ips": addresses, "dns": {}}]).to_string()
}
