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
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Controller, Error};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client};
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
    let ours = watcher::Config::default().labels(SELECTOR);
    let pods = watcher::Config::default().labels(&proxy_pod_selector());
    let cluster = client.clone();
    let named_cluster = watcher::Config::default().fields(&format!("metadata.name={CONFIG_NAME}"));
    Controller::new(Api::<Config>::all(cluster.clone()), named_cluster)
        .watches(
            Api::<PartialObjectMeta<ServiceAccount>>::namespaced(cluster.clone(), namespace),
            ours.clone(),
            config,
        )
        .watches(
            Api::<PartialObjectMeta<ClusterRoleBinding>>::all(cluster.clone()),
            ours.clone(),
            config,
        )
        .watches(
            Api::<PartialObjectMeta<RoleBinding>>::namespaced(cluster.clone(), namespace),
            ours.clone(),
            config,
        )
        .watches(
            Api::<PartialObjectMeta<Deployment>>::namespaced(cluster.clone(), namespace),
            ours.clone(),
            config,
        )
        .watches(
            Api::<PartialObjectMeta<DaemonSet>>::namespaced(cluster.clone(), namespace),
            ours,
            config,
        )
        .watches(
            Api::<PartialObjectMeta<Pod>>::namespaced(cluster, namespace),
            pods,
            config,
        )
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

fn config<K>(_: K) -> [ObjectRef<Config>; 1] {
    [ObjectRef::new(CONFIG_NAME)]
}
