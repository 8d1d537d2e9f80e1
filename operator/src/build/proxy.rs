//! The proxy's DaemonSet, as proxy and as cleanup.
//!
//! Pure.

use super::{arguments, pod};
use crate::cleanup::CLEANUP_ANNOTATION;
use crate::validate::{RuntimeSocket, ValidatedConfig};
use api::config::{ProxyUpdateStrategy, UpdateStrategyType};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{HostPathVolumeSource, PodSpec, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

/// Crates whose log lines are the proxy's own.
const CRATES: &[&str] = &["proxy", "rules", "process"];
/// Nodes whose proxy may be unavailable during a rollout: OpenShift's convention for DaemonSets.
const MAX_UNAVAILABLE: &str = "10%";

pub(crate) fn configure(mut daemon_set: DaemonSet, config: &ValidatedConfig) -> DaemonSet {
    let spec = daemon_set.spec.get_or_insert_default();
    spec.update_strategy = Some(strategy(&config.update_strategy));
    let pod = spec.template.spec.get_or_insert_default();
    pod::configure(pod, &config.proxy, config);
    let mut args = vec![
        arguments::log_level(config.log_level, CRATES),
        arguments::backend(config.backend),
    ];
    args.extend(arguments::networks(&config.networks));
    args.extend(arguments::service_cidrs(&config.service_ranges));
    args.extend(arguments::host_networks(&config.host_networks));
    args.extend(
        config
            .legacy_namespaces
            .as_ref()
            .map(arguments::legacy_namespaces),
    );
    if let Some(socket) = &config.runtime {
        args.push(arguments::runtime(socket));
        mount(pod, socket);
    }
    let container = pod::container(pod);
    container.image = Some(config.proxy_image.clone());
    container.args = Some(args);
    daemon_set
}

fn strategy(
    ProxyUpdateStrategy {
        type_,
        rolling_update,
    }: &ProxyUpdateStrategy,
) -> DaemonSetUpdateStrategy {
    match type_ {
        UpdateStrategyType::OnDelete => DaemonSetUpdateStrategy {
            type_: Some("OnDelete".to_owned()),
            rolling_update: None,
        },
        UpdateStrategyType::RollingUpdate => {
            let chosen = rolling_update
                .as_ref()
                .and_then(|rolling| rolling.max_unavailable.clone());
            rolling(chosen.unwrap_or_else(|| IntOrString::String(MAX_UNAVAILABLE.to_owned())))
        }
    }
}

fn rolling(max_unavailable: IntOrString) -> DaemonSetUpdateStrategy {
    DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_unavailable: Some(max_unavailable),
            ..RollingUpdateDaemonSet::default()
        }),
    }
}

/// Mounts the directory and not the socket: a restarted runtime creates a new socket. The usual directories are in the manifest.
fn mount(pod: &mut PodSpec, RuntimeSocket { folder, .. }: &RuntimeSocket) {
    let mounts = pod::container(pod).volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == *folder) {
        return;
    }
    mounts.push(VolumeMount {
        name: "runtime".to_owned(),
        mount_path: folder.clone(),
        mount_propagation: Some("HostToContainer".to_owned()),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    pod.volumes.get_or_insert_default().push(Volume {
        name: "runtime".to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: folder.clone(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    });
}

/// Turns the proxy into a cleanup: the same pods on the same nodes, which remove all rules and then wait.
///
/// The template is the one that is `running`: its version knows the rules it wrote, nodes have its image, and a configuration with
/// invalid values can still be removed.
pub(crate) fn cleanup(mut daemon_set: DaemonSet, running: &DaemonSet, since: Timestamp) -> DaemonSet {
    mark(&mut daemon_set.metadata, since);
    if let Some(spec) = &mut daemon_set.spec {
        mark(spec.template.metadata.get_or_insert_default(), since);
        spec.update_strategy = Some(at_once());
        let pod = spec.template.spec.get_or_insert_default();
        keep(pod, running);
        let mut args = vec!["cleanup".to_owned(), "--wait".to_owned()];
        args.extend(runtime_argument(running));
        pod::container(pod).args = Some(args);
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
    let target = pod::container(pod);
    target.image.clone_from(&source.image);
    target.image_pull_policy.clone_from(&source.image_pull_policy);
    target.resources.clone_from(&source.resources);
    target.volume_mounts.clone_from(&source.volume_mounts);
}

/// All nodes at once: no traffic is served any more.
pub(crate) fn at_once() -> DaemonSetUpdateStrategy {
    rolling(IntOrString::String("100%".to_owned()))
}

/// The manifest with an image, when no DaemonSet exists to copy.
pub(crate) fn with_image(mut daemon_set: DaemonSet, image: String) -> DaemonSet {
    if let Some(pod) = daemon_set
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut())
    {
        pod::container(pod).image = Some(image);
    }
    daemon_set
}

/// `--container-runtime-endpoint` of the running proxy.
pub(crate) fn runtime_argument(running: &DaemonSet) -> Option<String> {
    let container = running_pod(running)?.containers.first()?;
    let mut args = container.args.iter().flatten();
    args.find(|arg| arg.starts_with("--container-runtime-endpoint="))
        .cloned()
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
