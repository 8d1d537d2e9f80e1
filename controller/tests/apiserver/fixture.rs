//! Fixture: the namespace of one test, with functions that create Services and pods and wait for slices, Events and conditions.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::names;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectList, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::apiserver::Apiserver;
use testbed::wait;

const SOON: Duration = Duration::from_secs(20);

/// One test's namespace.
pub(crate) struct Fixture {
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl Fixture {
    pub(crate) async fn new(server: &Apiserver, prefix: &str) -> Result<Self> {
        let fixture = Self {
            namespace: server.namespace(prefix).await?,
            client: server.client().await?,
        };
        fixture.network("testnet1").await?;
        Ok(fixture)
    }

    /// Waits until kube-controller-manager has made the service account without which no pod is admitted.
    pub(crate) async fn default_account(&self) -> Result<()> {
        wait::eventually(SOON, "the default service account", async || {
            Ok(self.api::<ServiceAccount>().get_opt("default").await?.map(drop))
        })
        .await
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

    /// Creates a managed Service on `testnet1` that selects `app: <name>`; `change` is merged over it.
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
        self.pod_status_at(name, ready, since, "10.128.0.5").await
    }

    /// [`Self::pod_status`] with an address on the cluster network.
    pub(crate) async fn pod_status_at(
        &self,
        name: &str,
        ready: &str,
        since: &str,
        address: &str,
    ) -> Result<()> {
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
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

    /// Creates a slice of a Service as its author would; `change` is merged over it.
    pub(crate) async fn manual_slice(&self, name: &str, service: &str, change: Value) -> Result<()> {
        let mut slice = json!({
            "metadata": {"name": name, "labels": {names::SERVICE_NAME_LABEL: service}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [],
        });
        merge(&mut slice, change);
        self.api::<EndpointSlice>()
            .create(&PostParams::default(), &serde_json::from_value(slice)?)
            .await?;
        Ok(())
    }

    /// Managed slices of a Service.
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
        // The API server has Events of its own on a new Service, such as ClusterIPNotAllocated.
        let is_ours = |event: &Event| event.reporting_controller.as_deref() == Some(names::CONTROLLER);
        let events = list.items.into_iter();
        Ok(events.filter(regards).filter(is_ours).collect())
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
                last = controller::service_status::condition::current(&service).cloned();
                Ok(last
                    .as_ref()
                    .filter(|c| c.status == status && c.reason == reason)
                    .map(drop))
            },
        )
        .await;
        found.with_context(|| format!("the condition is {last:?}"))
    }

    /// The Accepted condition as it is now.
    pub(crate) async fn accepted(&self, service: &str) -> Result<Option<Condition>> {
        let service = self.api::<Service>().get(service).await?;
        Ok(controller::service_status::condition::current(&service).cloned())
    }

    /// Waits until the Service has no Accepted condition.
    pub(crate) async fn accepted_gone(&self, service: &str) -> Result<()> {
        wait::eventually(SOON, &format!("no Accepted condition on {service}"), async || {
            let service = self.api::<Service>().get(service).await?;
            Ok(controller::service_status::condition::current(&service)
                .is_none()
                .then_some(()))
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
