//! Counts of the status, from Deployment and DaemonSet.
//!
//! Pure.

use api::config::{ControllerStatus, ProxyStatus};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// State of the controller.
pub(super) fn controller(deployment: &Deployment) -> ControllerStatus {
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    ControllerStatus {
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or_default(),
        updated: status.updated_replicas.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or_default(),
        available: status.available_replicas.unwrap_or_default(),
        image: spec.map(|spec| image(&spec.template)).unwrap_or_default(),
    }
}

/// State of the proxies, without the fields that come from their pods.
pub(super) fn proxy(daemon_set: &DaemonSet) -> ProxyStatus {
    let status = daemon_set.status.clone().unwrap_or_default();
    ProxyStatus {
        desired: status.desired_number_scheduled,
        current: status.current_number_scheduled,
        updated: status.updated_number_scheduled.unwrap_or_default(),
        ready: status.number_ready,
        available: status.number_available.unwrap_or_default(),
        unavailable: status.number_unavailable.unwrap_or_default(),
        image: daemon_set
            .spec
            .as_ref()
            .map(|spec| image(&spec.template))
            .unwrap_or_default(),
        ..ProxyStatus::default()
    }
}

fn image(template: &PodTemplateSpec) -> String {
    let container = template.spec.as_ref().and_then(|pod| pod.containers.first());
    container
        .and_then(|container| container.image.clone())
        .unwrap_or_default()
}
