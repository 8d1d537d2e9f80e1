//! Reads the input of one reconcile: the configuration, operands, their pods, the nodes.
//!
//! Reads the API server, not a cache: a decision from a stale object would be written back. Pods and nodes alone are those that
//! watches keep: there are many. [`read_latest`] reads them for a decision about a node.

use crate::cache::Cache;
use crate::kinds::{api, for_each_kind};
use crate::operands::{Kinds, Operands, SELECTOR};
use crate::platform::openshift::{self, OpenShift};
use crate::service_ranges::{self, ServiceRanges};
use api::names::{CONFIG_NAME, NETWORK_DEFINITION, OPERATOR_FIELD_MANAGER, PART_OF, PROXY};
use api::{MultusServiceConfig, MultusServiceConfigSpec};
use futures::TryFutureExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

/// The state of the cluster in one reconcile.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The configuration, with the last published status.
    pub config: MultusServiceConfig,
    /// The error when `spec` cannot be decoded; `config` then holds only the management state.
    pub unreadable: Option<String>,
    /// PriorityClasses that the configuration references and that do not exist, by field.
    pub missing_priority_classes: Vec<(&'static str, String)>,
    /// Objects that the operator applied.
    pub live: Operands,
    /// Pods of all operands, old and new.
    pub pods: Vec<Pod>,
    pub nodes: Vec<Node>,
    /// The error of the DaemonSet controller when it cannot create proxy pods.
    pub proxy_rejection: Option<String>,
    /// The OpenShift cluster, if it is one.
    pub openshift: Option<OpenShift>,
    /// Source of the Service CIDRs.
    pub service_ranges: ServiceRanges,
    /// Optional kinds that the API server serves.
    pub kinds: Kinds,
    /// True when the kind of Multus' networks is not defined.
    pub lacks_multus: bool,
    /// Version of this operator and of the operands it applies.
    pub version: String,
    /// The only clock of the reconcile, in whole seconds, the resolution of Kubernetes' timestamps.
    pub now: Timestamp,
}

/// Reads everything, pods and nodes from the cache; `None` when there is no configuration.
pub(crate) async fn gather(
    client: &Client,
    namespace: &str,
    version: &str,
    cache: &Cache,
) -> kube::Result<Option<Observed>> {
    let resource = ApiResource::erase::<MultusServiceConfig>(&());
    let configs: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let Some(config) = configs.get_opt(CONFIG_NAME).await? else {
        return Ok(None);
    };
    let (config, unreadable) = decode(config);
    let ((live, kinds), pods, nodes, openshift, service_ranges, lacks_multus, missing_priority_classes) = futures::try_join!(
        operands(client, namespace),
        kept_or_latest(cache.pods.all(), pods(client, namespace)),
        kept_or_latest(cache.nodes.all(), nodes(client)),
        openshift::detect(client),
        service_ranges::detect(client),
        lacks_multus(client),
        missing_priority_classes(client, &config),
    )?;
    let proxy_rejection = match live.proxy().filter(|proxy| lacks_pods(proxy)) {
        Some(proxy) => pod_rejection(namespaced(client, namespace), proxy).await?,
        None => None,
    };
    Ok(Some(Observed {
        config,
        unreadable,
        missing_priority_classes,
        live,
        pods,
        nodes,
        proxy_rejection,
        openshift,
        service_ranges,
        kinds,
        lacks_multus,
        version: version.to_owned(),
        now: now(),
    }))
}

/// Reads pods and nodes again, as they are now: those of the cache may be a moment old.
pub(crate) async fn read_latest(
    observed: &mut Observed,
    client: &Client,
    namespace: &str,
) -> kube::Result<()> {
    (observed.pods, observed.nodes) = futures::try_join!(pods(client, namespace), nodes(client))?;
    Ok(())
}

/// A watch that has not listed yet delays no reconcile, and so no shutdown.
async fn kept_or_latest<K>(
    kept: Option<Vec<K>>,
    latest: impl Future<Output = kube::Result<Vec<K>>>,
) -> kube::Result<Vec<K>> {
    match kept {
        Some(kept) => Ok(kept),
        None => latest.await,
    }
}

/// Decodes the configuration. It may hold values of a newer release; an operator that fails on the whole object could neither
/// report that nor remove the operands.
fn decode(found: DynamicObject) -> (MultusServiceConfig, Option<String>) {
    let DynamicObject { metadata, data, .. } = found;
    let part = |name: &str| data.get(name).cloned().unwrap_or_default();
    let (spec, unreadable) =
        match serde_json::from_value(data.get("spec").cloned().unwrap_or_else(|| json!({}))) {
            Ok(spec) => (spec, None),
            Err(error) => {
                let state = serde_json::from_value(part("spec")["managementState"].take());
                let spec = MultusServiceConfigSpec {
                    management_state: state.unwrap_or_default(),
                    ..MultusServiceConfigSpec::default()
                };
                (spec, Some(error.to_string()))
            }
        };
    let config = MultusServiceConfig {
        metadata,
        spec,
        status: serde_json::from_value(part("status")).unwrap_or_default(),
    };
    (config, unreadable)
}

/// The API server accepts a DaemonSet with an unknown class and rejects each of its pods.
async fn missing_priority_classes(
    client: &Client,
    config: &MultusServiceConfig,
) -> kube::Result<Vec<(&'static str, String)>> {
    let controller = config.spec.controller.as_ref();
    let proxy = config.spec.proxy.as_ref();
    let named = [
        (
            "spec.controller",
            controller.and_then(|controller| controller.priority_class_name.as_ref()),
        ),
        (
            "spec.proxy",
            proxy.and_then(|proxy| proxy.priority_class_name.as_ref()),
        ),
    ];
    let classes: Api<PriorityClass> = Api::all(client.clone());
    let mut missing = Vec::new();
    for (field, name) in named {
        if let Some(name) = name
            && classes.get_metadata_opt(name).await?.is_none()
        {
            missing.push((field, name.clone()));
        }
    }
    Ok(missing)
}

/// The definition of networks is installed with Multus.
async fn lacks_multus(client: &Client) -> kube::Result<bool> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    Ok(definitions.get_metadata_opt(NETWORK_DEFINITION).await?.is_none())
}

/// Reads all operands, and the optional kinds that the API server serves.
pub async fn operands(client: &Client, namespace: &str) -> kube::Result<(Operands, Kinds)> {
    macro_rules! read_kind {
        ($kind:ty, Required) => {
            applied_objects(api::<$kind>(client, namespace)).map_ok(Some)
        };
        ($kind:ty, $presence:ident) => {
            applied_objects_if_served(api::<$kind>(client, namespace))
        };
    }
    macro_rules! read_kinds {
        ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {{
            struct Found {
                $($field: Option<Vec<$kind>>,)*
            }
            let ($($field,)*) = futures::try_join!($(read_kind!($kind, $presence)),*)?;
            let found = Found { $($field,)* };
            let kinds = Kinds {
                admission_policies: found.admission_policies.is_some() && found.admission_policy_bindings.is_some(),
                quick_starts: found.console_quick_starts.is_some(),
                yaml_samples: found.console_yaml_samples.is_some(),
                service_monitors: found.service_monitors.is_some(),
                prometheus_rules: found.prometheus_rules.is_some(),
            };
            let operands = Operands {
                $($field: found.$field.unwrap_or_default(),)*
            };
            Ok((operands, kinds))
        }};
    }
    for_each_kind!(read_kinds)
}

fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Selects the pods of all operands.
pub fn pod_selector() -> String {
    format!("app.kubernetes.io/part-of={PART_OF}")
}

async fn pods(client: &Client, namespace: &str) -> kube::Result<Vec<Pod>> {
    list(namespaced(client, namespace), &pod_selector()).await
}

/// Reads nodes from the API server's watch cache: a quorum read of all nodes would be expensive.
async fn nodes(client: &Client) -> kube::Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(client.clone());
    Ok(nodes.list(&ListParams::default().match_any()).await?.items)
}

fn lacks_pods(proxy: &DaemonSet) -> bool {
    proxy
        .status
        .as_ref()
        .is_some_and(|status| status.current_number_scheduled < status.desired_number_scheduled)
}

/// Reads the Event of a failed pod creation: the status of a DaemonSet has no such message.
async fn pod_rejection(events: Api<Event>, proxy: &DaemonSet) -> kube::Result<Option<String>> {
    let about = format!(
        "involvedObject.kind=DaemonSet,involvedObject.name={PROXY},reason=FailedCreate,involvedObject.uid={}",
        proxy.uid().unwrap_or_default()
    );
    let found = events
        .list(&ListParams::default().fields(&about).limit(100))
        .await?;
    let latest = found
        .items
        .into_iter()
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    Ok(latest.and_then(|event| event.message))
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// Lists objects with the operator's labels *and* its field manager: a copy of an operand has the labels, too.
async fn applied_objects<K>(api: Api<K>) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut objects = list(api, SELECTOR).await?;
    objects.retain(is_applied_by_operator);
    Ok(objects)
}

/// Lists objects of an optional kind: its absence is a bare 404 without a Status.
async fn applied_objects_if_served<K>(api: Api<K>) -> kube::Result<Option<Vec<K>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match applied_objects(api).await {
        Ok(objects) => Ok(Some(objects)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_applied_by_operator(object: &impl Resource) -> bool {
    let is_operator = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(OPERATOR_FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
    };
    object.meta().managed_fields.iter().flatten().any(is_operator)
}

async fn list<K: Clone + DeserializeOwned + Debug>(api: Api<K>, labels: &str) -> kube::Result<Vec<K>> {
    Ok(api.list(&ListParams::default().labels(labels)).await?.items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::config::ManagementState;

    fn of(spec: &serde_json::Value) -> (MultusServiceConfig, Option<String>) {
        decode(
            serde_json::from_value(json!({ "metadata": { "name": "cluster", "uid": "u" }, "spec": spec }))
                .unwrap(),
        )
    }

    #[test]
    fn undecodable_spec_keeps_metadata_and_management_state() {
        let (config, unreadable) =
            of(&json!({ "managementState": "Removed", "proxy": { "backend": "Later" } }));
        assert_eq!(
            (config.metadata.uid.as_deref(), config.spec.management_state),
            (Some("u"), ManagementState::Removed)
        );
        assert!(unreadable.unwrap().contains("Later"));
        assert_eq!(of(&json!({ "proxy": { "backend": "Auto" } })).1, None);
        assert_eq!(of(&json!({})).1, None);
    }
}
