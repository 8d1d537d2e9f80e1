//! The DaemonSet that cleans up nodes that no longer match the proxy's scheduling.
//!
//! Pure. It is the proxy's DaemonSet under another name, for nodes with the cleanup label, with a toleration of every taint. Both declare the
//! same host port, so that no node runs both at once.

use super::CLEANUP_ANNOTATION;
use super::node_labels::{CLEANUP_PENDING, LABEL};
use crate::build::{self, pod, proxy};
use crate::validate::ReleaseImages;
use api::MultusServiceConfigSpec;
use api::names::CLEANUP;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Builds it from the proxy's DaemonSet; `since` is set during a removal.
pub(crate) fn cleanup(proxy: &DaemonSet, since: Option<Timestamp>) -> DaemonSet {
    let mut daemon_set = proxy.clone();
    daemon_set.metadata = named(&proxy.metadata);
    if let Some(since) = since {
        daemon_set
            .annotations_mut()
            .insert(CLEANUP_ANNOTATION.to_owned(), since.to_string());
    }
    let spec = daemon_set.spec.get_or_insert_default();
    spec.update_strategy = Some(proxy::at_once());
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
    let endpoint = proxy::runtime_argument(proxy);
    pod::container(pod).args = Some(
        ["cleanup", "--wait"]
            .map(str::to_owned)
            .into_iter()
            .chain(endpoint)
            .collect(),
    );
    daemon_set
}

/// Copies the labels under the name of the cleanup.
fn named(metadata: &ObjectMeta) -> ObjectMeta {
    let mut labels = metadata.labels.clone().unwrap_or_default();
    labels.insert(NAME_LABEL.to_owned(), CLEANUP.to_owned());
    labels.remove(build::VERSION_LABEL);
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
