//! The controller's Deployment.
//!
//! Pure.

use super::{arguments, pod, tracing};
use crate::validate::ValidatedConfig;
use crate::workloads::container;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};

/// Crates whose log lines are the controller's own.
const CRATES: &[&str] = &["controller", "process"];

pub(super) fn configure(mut deployment: Deployment, config: &ValidatedConfig) -> Deployment {
    let DeploymentSpec {
        replicas, template, ..
    } = deployment.spec.get_or_insert_default();
    *replicas = Some(config.replicas);
    let pod = template.spec.get_or_insert_default();
    pod::configure(pod, &config.controller, config);
    let mut args = vec![arguments::log_level(config.log_level, CRATES)];
    args.extend(arguments::metrics_certificate());
    args.extend(arguments::networks(&config.networks));
    args.extend(arguments::service_cidrs(&config.service_ranges));
    if let Some(tracing) = &config.tracing {
        args.extend(tracing::arguments(tracing));
        tracing::configure(pod, tracing);
    }
    let container = container(pod);
    container.image = Some(config.controller_image.clone());
    container.args = Some(args);
    deployment
}
