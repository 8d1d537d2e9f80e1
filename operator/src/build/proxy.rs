//! The proxy's DaemonSet, at work and as a clean-up.
//!
//! Pure.

use super::arguments;
use crate::removal::CLEANUP_ANNOTATION;
use crate::validate::ValidatedConfig;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

/// Crates whose log lines are the proxy's own.
const CRATES: &[&str] = &["proxy", "rules", "process"];

pub(super) fn configure(mut daemon_set: DaemonSet, config: &ValidatedConfig) -> DaemonSet {
    let pod = daemon_set
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut());
    let container = arguments::container(pod);
    container.image = Some(config.proxy_image.clone());
    container.args = Some(vec![
        arguments::log_level(config.log_level, CRATES),
        arguments::backend(config.backend),
    ]);
    daemon_set
}

/// The same pods in the same places, but they take our rules away and then wait.
///
/// The image is the one that is `running`: it knows the rules it made, nodes have it, and a configuration that names a wrong
/// image can still be removed.
pub(super) fn clean_up(mut daemon_set: DaemonSet, running: &DaemonSet, since: Timestamp) -> DaemonSet {
    mark(&mut daemon_set.metadata, since);
    if let Some(spec) = &mut daemon_set.spec {
        mark(spec.template.metadata.get_or_insert_default(), since);
        // No traffic is served any more, so nothing is gained by going node after node.
        spec.update_strategy = Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_unavailable: Some(IntOrString::String("100%".to_owned())),
                ..RollingUpdateDaemonSet::default()
            }),
        });
        let container = arguments::container(spec.template.spec.as_mut());
        container.image = image(running);
        container.args = Some(["cleanup", "--wait"].map(str::to_owned).to_vec());
    }
    daemon_set
}

fn mark(metadata: &mut ObjectMeta, since: Timestamp) {
    metadata
        .annotations
        .get_or_insert_default()
        .insert(CLEANUP_ANNOTATION.to_owned(), since.to_string());
}

fn image(daemon_set: &DaemonSet) -> Option<String> {
    let pod = daemon_set.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.first()?.image.clone()
}
