//! Reads what one reconcile needs: the configuration, our objects, the proxies' pods.
//!
//! Reads the API server, not a cache: a decision made from a stale object would be written back as truth.

use crate::operands::{Operands, SELECTOR};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, PROXY};
use k8s_openapi::api::core::v1::Pod;
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
    /// Every object that carries our labels.
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

async fn ours<K: Clone + DeserializeOwned + Debug>(api: Api<K>) -> kube::Result<Vec<K>> {
    list(api, SELECTOR).await
}

async fn list<K: Clone + DeserializeOwned + Debug>(api: Api<K>, labels: &str) -> kube::Result<Vec<K>> {
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}
