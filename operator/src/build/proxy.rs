//! The proxy's DaemonSet.
//!
//! Pure.

use super::{arguments, pod, tracing};
use crate::validate::{RuntimeSocket, ValidatedConfig};
use crate::workloads::{self, container};
use api::config::{ProxyUpdateStrategy, UpdateStrategyType};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, PodSpec, Service, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Crates whose log lines are the proxy's own.
const CRATES: &[&str] = &["proxy", "rules", "process"];
/// Name of the port of the metrics.
const METRICS: &str = "metrics";
/// Name of the Service of the metrics.
const METRICS_SERVICE: &str = "multus-service-proxy-metrics";
/// Nodes whose proxy may be unavailable during a rollout: OpenShift's convention for DaemonSets.
const MAX_UNAVAILABLE: &str = "10%";

pub(super) fn configure(mut daemon_set: DaemonSet, config: &ValidatedConfig) -> DaemonSet {
    let spec = daemon_set.spec.get_or_insert_default();
    spec.update_strategy = Some(strategy(&config.update_strategy));
    let pod = spec.template.spec.get_or_insert_default();
    pod::configure(pod, &config.proxy, config);
    let mut args = vec![
        arguments::log_level(config.log_level, CRATES),
        arguments::backend(config.backend),
    ];
    args.extend(arguments::metrics_certificate());
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
    if let Some(tracing) = &config.tracing {
        args.extend(tracing::arguments(tracing));
        tracing::configure(pod, tracing);
    }
    let container = container(pod);
    if let Some(port) = config.metrics_port {
        args.push(arguments::metrics_port(port));
        set_metrics_port(container, port);
    }
    container.image = Some(config.proxy_image.clone());
    container.args = Some(args);
    daemon_set
}

/// Declares the port, so that the scheduler knows it and the Service finds it.
fn set_metrics_port(container: &mut Container, port: u16) {
    let ports = container.ports.iter_mut().flatten();
    for declared in ports.filter(|declared| declared.name.as_deref() == Some(METRICS)) {
        declared.container_port = port.into();
        declared.host_port = Some(port.into());
    }
}

/// Sets the port of the Service of the proxy's metrics to that of the proxy's pods.
pub(super) fn align_service(services: &mut [Service], proxy: &DaemonSet) {
    let pod = proxy.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.into_iter().flat_map(|pod| &pod.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let declared = ports.find(|port| port.name.as_deref() == Some(METRICS));
    let service = services
        .iter_mut()
        .find(|service| service.metadata.name.as_deref() == Some(METRICS_SERVICE));
    let ports = service.and_then(|service| service.spec.as_mut()?.ports.as_mut());
    for (port, declared) in ports.into_iter().flatten().zip(declared) {
        port.port = declared.container_port;
    }
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
            workloads::rolling_update(
                chosen.unwrap_or_else(|| IntOrString::String(MAX_UNAVAILABLE.to_owned())),
            )
        }
    }
}

/// Mounts the directory and not the socket: a restarted runtime creates a new socket. The usual directories are in the manifest.
fn mount(pod: &mut PodSpec, RuntimeSocket { folder, .. }: &RuntimeSocket) {
    let mounts = container(pod).volume_mounts.get_or_insert_default();
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
