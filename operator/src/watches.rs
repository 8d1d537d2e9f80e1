//! Which change in the cluster calls for a turn: any of the configuration, of our objects, of the proxies' pods.
//!
//! Writes: nothing. Only metadata is watched, so an object of a shape we do not know can stop no watch, and nothing is kept in
//! memory but the configuration's metadata.

use crate::gather::proxy_pod_selector;
use crate::operands::SELECTOR;
use crate::reconcile::{self, Context, reconcile};
use api::MultusServiceConfig;
use api::names::CONFIG_NAME;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::{Controller, Error};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

type Config = PartialObjectMeta<MultusServiceConfig>;

/// Runs turns until `shutdown`; yields after each. The turn that runs at that moment is finished.
pub fn turns(
    client: &Client,
    namespace: &str,
    context: Context,
    shutdown: CancellationToken,
) -> impl Stream<Item = ()> {
    let singleton = watcher::Config::default().fields(&format!("metadata.name={CONFIG_NAME}"));
    let ours = || watcher::Config::default().labels(SELECTOR);
    let proxies = watcher::Config::default().labels(&proxy_pod_selector());
    Controller::new(Api::<Config>::all(client.clone()), singleton)
        .watches(namespaced::<ServiceAccount>(client, namespace), ours(), config)
        .watches(
            Api::<PartialObjectMeta<ClusterRoleBinding>>::all(client.clone()),
            ours(),
            config,
        )
        .watches(namespaced::<RoleBinding>(client, namespace), ours(), config)
        .watches(namespaced::<Deployment>(client, namespace), ours(), config)
        .watches(namespaced::<DaemonSet>(client, namespace), ours(), config)
        .watches(namespaced::<Pod>(client, namespace), proxies, config)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |_, context| async move { reconcile(&context).await },
            |_, error, _| reconcile::retry(error),
            Arc::new(context),
        )
        .map(|turn| match turn {
            // A change of an operand while there is no configuration, and errors that `retry` has logged.
            Ok(_) | Err(Error::ObjectNotFound(_) | Error::ReconcilerFailed(..)) => debug!("Reconciled"),
            Err(error @ (Error::QueueError(_) | Error::RunnerError(_))) => warn!(%error, "A watch failed"),
        })
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

fn config<K>(_: K) -> [ObjectRef<Config>; 1] {
    [ObjectRef::new(CONFIG_NAME)]
}
