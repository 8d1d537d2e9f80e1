//! Traces: arguments, volume and name resolution of an operand's pods.
//!
//! Pure.

use crate::validate::Tracing;
use crate::workloads;
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, PodSpec, Volume, VolumeMount};

/// Name of the volume, and the directory in the container.
const VOLUME: &str = "tracing-ca";
const DIRECTORY: &str = "/etc/multus-service/tracing-ca";
const FILE: &str = "ca.crt";

/// The arguments of a process that traces.
pub(super) fn arguments(tracing: &Tracing) -> Vec<String> {
    let mut arguments = vec![
        format!("--tracing-endpoint={}", tracing.endpoint),
        format!(
            "--tracing-sampling-rate-per-million={}",
            tracing.sampling_rate_per_million
        ),
    ];
    if tracing.ca.is_some() {
        arguments.push(format!("--tracing-ca-file={DIRECTORY}/{FILE}"));
    }
    arguments
}

/// Lets the pod resolve the receiver's Service, and mounts the certificate authorities. Optional: a missing ConfigMap must not keep the pod
/// from starting.
pub(super) fn configure(pod: &mut PodSpec, tracing: &Tracing) {
    if pod.host_network == Some(true) {
        // Nothing else in the process resolves names.
        pod.dns_policy = Some("ClusterFirstWithHostNet".to_owned());
    }
    let Some((name, key)) = &tracing.ca else {
        return;
    };
    pod.volumes.get_or_insert_default().push(Volume {
        name: VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.clone(),
            items: Some(vec![KeyToPath {
                key: key.clone(),
                path: FILE.to_owned(),
                mode: None,
            }]),
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    let container = workloads::container(pod);
    container.volume_mounts.get_or_insert_default().push(VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
}
