//! The DaemonSets that clean up nodes: the running proxy's, and one for nodes that no longer match the proxy's scheduling.
//!
//! Pure. The latter is the proxy's DaemonSet under another name, for nodes with the cleanup label, with a toleration of every taint. Both declare the
//! same host port, so that no node runs both at once.

use super::CLEANUP_ANNOTATION;
use super::node_labels::{CLEANUP_PENDING, LABEL};
use crate::operands::VERSION_LABEL;
use crate::validate::ReleaseImages;
use crate::workloads::{container, rolling_update};
use api::MultusServiceConfigSpec;
use api::names::CLEANUP;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Arguments of the proxy that its cleanup takes, too.
const KEPT: [&str; 2] = ["--container-runtime-endpoint=", "--metrics-port="];

/// Builds it from the proxy's DaemonSet; `since` is set during a removal.
pub(crate) fn for_labelled_nodes(proxy: &DaemonSet, since: Option<Timestamp>) -> DaemonSet {
    let mut daemon_set = proxy.clone();
    daemon_set.metadata = named(&proxy.metadata);
    if let Some(since) = since {
        daemon_set
            .annotations_mut()
            .insert(CLEANUP_ANNOTATION.to_owned(), since.to_string());
    }
    let spec = daemon_set.spec.get_or_insert_default();
    spec.update_strategy = Some(at_once());
    spec.selector.match_labels = Some([(NAME_LABEL.to_owned(), CLEANUP.to_owned())].into());
    let metadata = spec.template.metadata.get_or_insert_default();
    *metadata = ObjectMeta {
        annotations: metadata.annotations.take(),
        ..named(metadata)
    };
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(CLEANUP_ANNOTATION);
    }
    let pod = spec.template.spec.get_or_insert_default();
    everywhere(pod);
    container(pod).args = Some(arguments(proxy));
    daemon_set
}

/// Copies the labels under the name of the cleanup.
fn named(metadata: &ObjectMeta) -> ObjectMeta {
    let mut labels = metadata.labels.clone().unwrap_or_default();
    labels.insert(NAME_LABEL.to_owned(), CLEANUP.to_owned());
    labels.remove(VERSION_LABEL);
    ObjectMeta {
        name: metadata.name.as_ref().map(|_| CLEANUP.to_owned()),
        namespace: metadata.namespace.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn everywhere(pod: &mut PodSpec) {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    pod.node_selector = Some([label("kubernetes.io/os", "linux"), label(LABEL, CLEANUP_PENDING)].into());
    pod.affinity = None;
    pod.tolerations = Some(vec![Toleration {
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }]);
}

/// The image to clean up with when no proxy runs.
pub(crate) fn image(
    last: Option<&DaemonSet>,
    spec: &MultusServiceConfigSpec,
    images: &ReleaseImages,
) -> Option<String> {
    let last = last.and_then(|last| {
        let pod = last.spec.as_ref()?.template.spec.as_ref()?;
        pod.containers.first()?.image.clone()
    });
    let chosen = || spec.proxy.as_ref().and_then(|proxy| proxy.image.clone());
    last.or_else(chosen)
        .or_else(|| images.proxy.clone())
        .filter(|image| !image.is_empty())
}

/// Turns the proxy into a cleanup: the same pods on the same nodes, which remove all rules and then wait.
///
/// The template is the one that is `running`: its version knows the rules it wrote, nodes have its image, and a configuration with
/// invalid values can still be removed.
pub(crate) fn from_running_proxy(
    mut daemon_set: DaemonSet,
    running: &DaemonSet,
    since: Timestamp,
) -> DaemonSet {
    mark(&mut daemon_set.metadata, since);
    if let Some(spec) = &mut daemon_set.spec {
        mark(spec.template.metadata.get_or_insert_default(), since);
        spec.update_strategy = Some(at_once());
        let pod = spec.template.spec.get_or_insert_default();
        keep(pod, running);
        container(pod).args = Some(arguments(running));
    }
    daemon_set
}

/// Copies the fields that depend on the configuration.
fn keep(pod: &mut PodSpec, running: &DaemonSet) {
    let Some(source) = running_pod(running) else {
        return;
    };
    pod.node_selector.clone_from(&source.node_selector);
    pod.tolerations.clone_from(&source.tolerations);
    pod.affinity.clone_from(&source.affinity);
    pod.priority_class_name.clone_from(&source.priority_class_name);
    pod.image_pull_secrets.clone_from(&source.image_pull_secrets);
    pod.volumes.clone_from(&source.volumes);
    let Some(source) = source.containers.first() else {
        return;
    };
    let target = container(pod);
    target.image.clone_from(&source.image);
    target.image_pull_policy.clone_from(&source.image_pull_policy);
    target.resources.clone_from(&source.resources);
    target.volume_mounts.clone_from(&source.volume_mounts);
    target.ports.clone_from(&source.ports);
}

/// All nodes at once: no traffic is served any more.
fn at_once() -> DaemonSetUpdateStrategy {
    rolling_update(IntOrString::String("100%".to_owned()))
}

/// The manifest with an image, when no DaemonSet exists to copy.
pub(crate) fn with_image(mut daemon_set: DaemonSet, image: String) -> DaemonSet {
    if let Some(pod) = daemon_set
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut())
    {
        container(pod).image = Some(image);
    }
    daemon_set
}

/// The arguments of a cleanup: of those of the proxy, the ones that depend on the node.
fn arguments(proxy: &DaemonSet) -> Vec<String> {
    let containers = running_pod(proxy).into_iter().flat_map(|pod| &pod.containers);
    let args = containers
        .take(1)
        .flat_map(|container| container.args.iter().flatten());
    let kept = args.filter(|arg| KEPT.iter().any(|name| arg.starts_with(name)));
    let cleanup = ["cleanup", "--wait"].map(str::to_owned);
    cleanup.into_iter().chain(kept.cloned()).collect()
}

fn running_pod(running: &DaemonSet) -> Option<&PodSpec> {
    running.spec.as_ref()?.template.spec.as_ref()
}

fn mark(metadata: &mut ObjectMeta, since: Timestamp) {
    metadata
        .annotations
        .get_or_insert_default()
        .insert(CLEANUP_ANNOTATION.to_owned(), since.to_string());
}
