//! The controller's Deployment.
//!
//! Pure.

use super::arguments;
use crate::validate::ValidatedConfig;
use k8s_openapi::api::apps::v1::Deployment;

/// Crates whose log lines are the controller's own.
const CRATES: &[&str] = &["controller", "process"];

pub(super) fn configure(mut deployment: Deployment, config: &ValidatedConfig) -> Deployment {
    let pod = deployment
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut());
    let container = arguments::container(pod);
    container.image = Some(config.controller_image.clone());
    container.args = Some(vec![arguments::log_level(config.log_level, CRATES)]);
    deployment
}
