//! Reads what one reconcile needs: the configuration, our objects, the proxies' pods.
//!
//! Reads the API server, not a cache: a decision made from a stale object would be written back as truth.

use crate::operands::{Operands, SELECTOR};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, OPERATOR_FIELD_MANAGER, PROXY};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// The cluster as one reconcile sees it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the administrator wants, and what we said last.
    pub config: MultusServiceConfig,
    /// Every object that we applied.
    pub live: Operands,
    /// The proxies, old and new.
    pub proxy_pods: Vec<Pod>,
    /// The only clock of the reconcile, in whole seconds as Kubernetes writes times.
    pub now: Timestamp,
}

/// Reads everything; `None` when there is no configuration.
pub async fn gather(client: &Client, namespace: &str) -> kube::Result<Option<Observed>> {
    let configs: Api<MultusServiceConfig> = Api::all(client.clone());
    let Some(config) = configs.get_opt(CONFIG_NAME).await? else {
        return Ok(None);
    };
    let pods = proxy_pod_selector();
    let (service_accounts, cluster_role_bindings, role_bindings, deployments, daemon_sets, proxy_pods) = futures::try_join!(
        ours(namespaced(client, namespace)),
        ours(Api::all(client.clone())),
        ours(namespaced(client, namespace)),
        ours(namespaced(client, namespace)),
        ours(namespaced(client, namespace)),
        list(namespaced(client, namespace), &pods),
    )?;
    let live = Operands {
        service_accounts,
        cluster_role_bindings,
        role_bindings,
        deployments,
        daemon_sets,
    };
    Ok(Some(Observed {
        config,
        live,
        proxy_pods,
        now: now(),
    }))
}

fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Selects the proxies' pods, as the DaemonSet does.
pub fn proxy_pod_selector() -> String {
    format!("app.kubernetes.io/name={PROXY}")
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// What carries our labels *and* was applied by us: whoever copies an object of ours copies its labels, too.
async fn ours<K>(api: Api<K>) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut objects = list(api, SELECTOR).await?;
    objects.retain(applied_by_us);
    Ok(objects)
}

fn applied_by_us(object: &impl Resource) -> bool {
    let ours = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(OPERATOR_FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
    };
    object.meta().managed_fields.iter().flatten().any(ours)
}

async fn list<K: Clone + DeserializeOwned + Debug>(api: Api<K>, labels: &str) -> kube::Result<Vec<K>> {
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}
