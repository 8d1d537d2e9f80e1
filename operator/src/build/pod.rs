//! Fields of both operands' pods that depend on the configuration.
//!
//! Pure.

use crate::validate::{PodSettings, ValidatedConfig};
use crate::workloads;
use api::config::{ImagePullPolicy, Resources};
use k8s_openapi::api::core::v1::{LocalObjectReference, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

pub(super) fn configure(pod: &mut PodSpec, settings: &PodSettings, config: &ValidatedConfig) {
    let PodSettings {
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        resources,
    } = settings;
    pod.node_selector
        .get_or_insert_default()
        .extend(node_selector.clone());
    replace(&mut pod.tolerations, tolerations.as_ref());
    replace(&mut pod.affinity, affinity.as_ref());
    replace(&mut pod.priority_class_name, priority_class_name.as_ref());
    if !config.pull_secrets.is_empty() {
        let reference = |name: &String| LocalObjectReference { name: name.clone() };
        pod.image_pull_secrets = Some(config.pull_secrets.iter().map(reference).collect());
    }
    let container = workloads::container(pod);
    container.image_pull_policy = Some(pull_policy(config.pull_policy).to_owned());
    limit(container.resources.get_or_insert_default(), resources);
}

fn replace<T: Clone>(base: &mut Option<T>, overrides: Option<&T>) {
    if let Some(overrides) = overrides {
        *base = Some(overrides.clone());
    }
}

fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

/// A request without a limit removes our limit, which may be smaller than the request.
fn limit(base: &mut ResourceRequirements, Resources { requests, limits }: &Resources) {
    let merge = |base: &mut Option<BTreeMap<String, Quantity>>,
                 overrides: &Option<BTreeMap<String, Quantity>>| {
        if let Some(overrides) = overrides {
            base.get_or_insert_default().extend(overrides.clone());
        }
    };
    let has_memory = |quantities: &Option<BTreeMap<String, Quantity>>| {
        quantities
            .as_ref()
            .is_some_and(|quantities| quantities.contains_key("memory"))
    };
    if has_memory(requests)
        && let Some(limits) = &mut base.limits
    {
        limits.remove("memory");
    }
    base.limits = base.limits.take().filter(|limits| !limits.is_empty());
    merge(&mut base.requests, requests);
    merge(&mut base.limits, limits);
}
