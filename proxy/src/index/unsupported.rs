//! Unsupported clients: their packets bypass the network namespace of the pod, so that rules do not apply.
//!
//! Pure. What is known only on the node (a sandbox with a network stack of its own, as gVisor's and Kata's) is reported by the container runtime.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

/// Label of a pod that runs a KubeVirt virtual machine.
const VIRTUAL_MACHINE: (&str, &str) = ("kubevirt.io", "virt-launcher");

/// Client that uses an interface past the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnsupportedClient {
    /// Interface; `None`: all of them.
    pub(super) interface: Option<String>,
    /// Description.
    pub(super) by: String,
}

/// The part of network-status that the specification calls device-info.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    interface: Option<String>,
    #[serde(default, rename = "device-info")]
    device: Option<Device>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    vdpa: Option<Vdpa>,
}

#[derive(Deserialize)]
struct Vdpa {
    #[serde(default)]
    driver: String,
}

/// Finds the unsupported clients of a pod. Malformed network-status is reported elsewhere.
pub(super) fn of(pod: &Pod, network_status: &str) -> Vec<UnsupportedClient> {
    let labels = pod.metadata.labels.iter().flatten();
    let is_machine = |(key, value): (&String, &String)| (key.as_str(), value.as_str()) == VIRTUAL_MACHINE;
    let machine = labels.into_iter().any(is_machine).then(|| UnsupportedClient {
        interface: None,
        by: "a virtual machine of KubeVirt, if not bound by masquerade,".to_owned(),
    });
    let entries: Vec<Entry> = serde_json::from_str(network_status).unwrap_or_default();
    let userspace = entries.into_iter().filter_map(|entry| {
        let driver = userspace_driver(&entry.device?)?;
        Some(UnsupportedClient {
            interface: Some(entry.interface.unwrap_or_default()),
            by: format!("a userspace driver ({driver})"),
        })
    });
    machine.into_iter().chain(userspace).collect()
}

fn userspace_driver(device: &Device) -> Option<&'static str> {
    match device.kind.as_str() {
        "vhost-user" => Some("vhost-user"),
        "memif" => Some("memif"),
        "vdpa" if device.vdpa.as_ref()?.driver == "vhost" => Some("vhost-vdpa"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn clients(labels: &serde_json::Value, status: &str) -> Vec<(Option<String>, String)> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": labels}})).unwrap();
        let all = of(&pod, status).into_iter();
        all.map(|client| (client.interface, client.by)).collect()
    }

    #[rstest]
    #[case::kernel(r#"{"type": "pci", "pci": {"pci-address": "0000:18:02.5"}}"#, None)]
    #[case::vhost_user(
        r#"{"type": "vhost-user", "vhost-user": {"mode": "client", "path": "/v/s"}}"#,
        Some("vhost-user")
    )]
    #[case::memif(r#"{"type": "memif", "memif": {"role": "slave"}}"#, Some("memif"))]
    #[case::vdpa_kernel(r#"{"type": "vdpa", "vdpa": {"driver": "virtio"}}"#, None)]
    #[case::vdpa_userspace(r#"{"type": "vdpa", "vdpa": {"driver": "vhost"}}"#, Some("vhost-vdpa"))]
    fn userspace_drivers_are_detected_by_device_info(#[case] device: &str, #[case] driver: Option<&str>) {
        let status = format!(r#"[{{"name": "web/fast", "interface": "net1", "device-info": {device}}}]"#);
        let want: Vec<_> = driver
            .map(|driver| (Some("net1".to_owned()), format!("a userspace driver ({driver})")))
            .into_iter()
            .collect();
        assert_eq!(clients(&json!({}), &status), want);
    }

    #[test]
    fn a_virtual_machine_is_detected_by_its_kubevirt_label() {
        assert_eq!(clients(&json!({"kubevirt.io": "virt-launcher"}), "[]").len(), 1);
        assert_eq!(clients(&json!({"kubevirt.io": "virt-handler"}), "{{{"), []);
        assert_eq!(clients(&json!({}), r#"[{"device-info": 7}]"#), []);
    }
}
