//! `LocalPod`: a pod of this node, reduced to the fields that rules depend on.
//!
//! Pure. Multus writes network-status while the sandbox is created, before any container runs: a pod is served from then on, not from phase
//! Running, so that init containers are served too.

use super::unsupported::{self, UnsupportedClient};
use api::names::NETWORK_STATUS_ANNOTATION;
use api::network_status::{self, Fault, NetworkStatus, Parsed};
use api::{NamespaceIsolation, NetworkRef, ObjectName};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use rules::{NetworkRules, PodRules, Shortcoming};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Annotation of the mirror pod of a static pod: its UID at the container runtime.
const STATIC_UID_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// In place of a UID; those of the API server are of another form.
pub(crate) const HOST_UID: &str = "node/host-network";

/// Pod of this node that the index uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePod {
    /// Pod with a network namespace of its own, to which Multus may attach networks.
    Attached(LocalPod),
    /// Object that cannot be decoded as a Pod: its last state is kept.
    Unreadable {
        /// UID.
        uid: String,
    },
    /// Pod that looks like the archived multus-service proxy, which writes into the same namespaces for the same Services.
    LegacyProxy {
        /// UID.
        uid: String,
        /// Name.
        name: ObjectName,
        /// A DaemonSet controls the pod, as in its manifest.
        of_a_daemon_set: bool,
    },
}

impl NodePod {
    /// Parses a pod. `None`: the pod is ignored.
    pub fn parse(pod: &Pod) -> Option<Self> {
        if is_legacy_proxy(pod) {
            return Some(Self::LegacyProxy {
                uid: pod.metadata.uid.clone()?,
                name: ObjectName::of(pod),
                of_a_daemon_set: is_of_a_daemon_set(pod),
            });
        }
        LocalPod::parse(pod).map(Self::Attached)
    }

    /// Returns the UID.
    pub fn uid(&self) -> &str {
        match self {
            Self::Attached(pod) => &pod.uid,
            Self::LegacyProxy { uid, .. } | Self::Unreadable { uid } => uid,
        }
    }
}

/// Recognizes it by the labels of its DaemonSet `multus-proxy-ds-amd64` and by its program. A tenant who may create pods with hostNetwork
/// can copy both: the [index](super::Index) accepts it only in a namespace that tenants cannot write into.
fn is_legacy_proxy(pod: &Pod) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network == Some(true)) else {
        return false;
    };
    let runs_it = spec.containers.iter().any(|container| {
        let program = container.command.iter().flatten().next();
        program.is_some_and(|program| program == "multus-proxy" || program.ends_with("/multus-proxy"))
    });
    let labels = pod.metadata.labels.iter().flatten();
    let labelled = labels
        .into_iter()
        .any(|(key, value)| matches!(key.as_str(), "app" | "name") && value == "multus-proxy");
    runs_it && labelled
}

fn is_of_a_daemon_set(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| owner.kind == "DaemonSet" && owner.api_version.starts_with("apps/"))
}

/// Pod that may have a secondary network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Name.
    pub name: ObjectName,
    /// UID of the Pod object.
    pub uid: String,
    /// UID at the container runtime.
    pub runtime_uid: String,
    /// Entries of network-status, or the parse error.
    pub attachments: Result<Vec<NetworkStatus>, String>,
    /// Invalid entries of network-status.
    pub faults: Vec<Fault>,
    /// Addresses on all networks.
    pub addresses: BTreeSet<IpAddr>,
    /// Clients that use an interface past the network namespace.
    unsupported_clients: Vec<UnsupportedClient>,
    /// Set for the node itself.
    pub is_host: bool,
    /// Changes when the sandbox may have been recreated.
    pub sandbox_mark: String,
}

impl LocalPod {
    /// Parses a pod. `None`: it has no network namespace of its own, or its sandbox has ended. A pod without network-status has no
    /// attachments, not yet or not any more; in the latter case there may be rules to remove.
    pub fn parse(pod: &Pod) -> Option<Self> {
        let status = pod.status.clone().unwrap_or_default();
        let host_network = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let text = annotations
            .get(NETWORK_STATUS_ANNOTATION)
            .map_or("", String::as_str);
        if host_network || ended {
            return None;
        }
        let uid = pod.metadata.uid.clone()?;
        let parsed = if annotations.contains_key(NETWORK_STATUS_ANNOTATION) {
            network_status::parse(text)
        } else {
            Ok(Parsed::default())
        };
        let (attachments, faults) = match parsed {
            Ok(Parsed { statuses, faults }) => (Ok(statuses), faults),
            Err(error) => (Err(error.to_string()), Vec::new()),
        };
        let mut addresses: BTreeSet<IpAddr> = pod_ips(&status).collect();
        addresses.extend(attachments.iter().flatten().flat_map(|status| &status.addresses));
        addresses.retain(|address| api::address::check(*address).is_ok());
        Some(Self {
            name: ObjectName::of(pod),
            runtime_uid: annotations.get(STATIC_UID_ANNOTATION).unwrap_or(&uid).clone(),
            uid,
            attachments,
            faults,
            addresses,
            unsupported_clients: unsupported::of(pod, text),
            sandbox_mark: sandbox_mark(&status),
            is_host: false,
        })
    }

    /// Creates the pod that represents the node, which always has its loopback address.
    pub(crate) fn host(attachments: Vec<NetworkStatus>) -> Self {
        let mut addresses: BTreeSet<IpAddr> = attachments
            .iter()
            .flat_map(|status| status.addresses.clone())
            .collect();
        addresses.insert(Ipv4Addr::LOCALHOST.into());
        Self {
            name: ObjectName {
                namespace: "node".to_owned(),
                name: "host-network".to_owned(),
            },
            uid: HOST_UID.to_owned(),
            runtime_uid: HOST_UID.to_owned(),
            attachments: Ok(attachments),
            faults: Vec::new(),
            addresses,
            unsupported_clients: Vec::new(),
            sandbox_mark: String::new(),
            is_host: true,
        }
    }

    /// Returns interfaces on networks of `rules` that are used past the network namespace.
    pub(super) fn unsupported_shortcomings(&self, rules: &PodRules) -> BTreeSet<Shortcoming> {
        let mut found = BTreeSet::new();
        for network in rules.networks.keys() {
            let attached = self.attachments.iter().flatten();
            for status in attached.filter(|status| network.is_named(&status.network)) {
                let uses = |client: &&UnsupportedClient| {
                    client
                        .interface
                        .as_ref()
                        .is_none_or(|name| *name == status.interface)
                };
                found.extend(self.unsupported_clients.iter().filter(uses).map(|client| {
                    Shortcoming::Bypassed {
                        network: network.clone(),
                        interface: status.interface.clone(),
                        by: client.by.clone(),
                    }
                }));
            }
        }
        found
    }

    /// Returns networks with Services that have the name of an attached one in another namespace, which the pod may use and is not attached to.
    /// To Kubernetes, a copy of a network-attachment-definition is another network. Networks whose attached copy has Services are intended.
    pub(super) fn elsewhere(
        &self,
        served: &BTreeMap<NetworkRef, Arc<NetworkRules>>,
        isolation: &NamespaceIsolation,
    ) -> BTreeSet<Shortcoming> {
        let mut found = BTreeSet::new();
        for status in self.attachments.iter().flatten() {
            if served.keys().any(|network| network.is_named(&status.network)) {
                continue;
            }
            let namesakes = served.keys().filter(|network| {
                is_namesake(network, status)
                    && isolation.allows(&self.name.namespace, network)
                    && !self.is_attached_to(network)
            });
            found.extend(namesakes.map(|network| Shortcoming::OtherNamespace {
                attached: status.network.clone(),
                network: network.clone(),
            }));
        }
        found
    }

    /// Returns true when the pod is attached to a network of this name in any namespace.
    pub(super) fn is_attached_to_namesake(&self, network: &NetworkRef) -> bool {
        self.attachments
            .iter()
            .flatten()
            .any(|status| is_namesake(network, status))
    }

    /// Returns true when the pod is attached to `network`.
    pub fn is_attached_to(&self, network: &NetworkRef) -> bool {
        self.attachments
            .iter()
            .flatten()
            .any(|status| network.is_named(&status.network))
    }
}

fn is_namesake(network: &NetworkRef, status: &NetworkStatus) -> bool {
    let name = status.network.split_once('/').map(|(_, name)| name);
    name == Some(network.name())
}

fn pod_ips(status: &PodStatus) -> impl Iterator<Item = IpAddr> {
    let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    listed.chain(&status.pod_ip).filter_map(|ip| ip.parse().ok())
}

/// Combines container ids and the time of PodReadyToStartContainers (KEP-3085): both change with the sandbox.
fn sandbox_mark(status: &PodStatus) -> String {
    let containers = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    let containers = containers.filter_map(|container| container.container_id.as_deref());
    let conditions = status.conditions.iter().flatten();
    let ready = conditions.filter(|condition| condition.type_ == "PodReadyToStartContainers");
    let since = ready.filter_map(|condition| Some(condition.last_transition_time.as_ref()?.0.to_string()));
    let parts: BTreeSet<String> = containers.map(str::to_owned).chain(since).collect();
    parts.into_iter().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(annotation: &str, spec: &Value, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "client", "namespace": "web", "uid": "u-1", "annotations": {NETWORK_STATUS_ANNOTATION: annotation}},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    const ATTACHED: &str = r#"[{"name":"cbr0","interface":"eth0","ips":["10.128.0.7"]},{"name":"web/macvlan1","interface":"net1","ips":["10.1.0.7","fe80::7"]}]"#;

    #[test]
    fn a_pod_is_served_before_it_runs() {
        let pod = LocalPod::parse(&pod(
            ATTACHED,
            &json!({"containers": []}),
            &json!({"phase": "Pending"}),
        ))
        .unwrap();
        assert!(pod.is_attached_to(&NetworkRef::parse("macvlan1", "web").unwrap()));
        assert_eq!(
            pod.addresses,
            BTreeSet::from(["10.128.0.7".parse().unwrap(), "10.1.0.7".parse().unwrap()])
        );
    }

    #[rstest]
    #[case::it(json!({"app": "multus-proxy", "name": "multus-proxy"}), json!({"hostNetwork": true, "containers": [{"name": "p", "command": ["/usr/bin/multus-proxy"]}]}), true)]
    #[case::its_label_on_another(json!({"app": "multus-proxy"}), json!({"hostNetwork": true, "containers": [{"name": "p", "command": ["/bin/sh"]}]}), false)]
    #[case::not_on_the_host(json!({"app": "multus-proxy"}), json!({"containers": [{"name": "p", "command": ["/usr/bin/multus-proxy"]}]}), false)]
    #[case::ours(json!({"app.kubernetes.io/name": "multus-service-proxy"}), json!({"hostNetwork": true, "containers": [{"name": "p"}]}), false)]
    fn the_legacy_proxy_is_recognized(#[case] labels: Value, #[case] spec: Value, #[case] want: bool) {
        let mut pod = pod("[]", &spec, &json!({}));
        pod.metadata.labels = serde_json::from_value(labels).unwrap();
        assert_eq!(
            matches!(NodePod::parse(&pod), Some(NodePod::LegacyProxy { .. })),
            want
        );
    }

    #[rstest]
    #[case::a_daemon_sets(json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]), true)]
    #[case::without_owner(json!([]), false)]
    #[case::a_replica_sets(json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "d", "uid": "u", "controller": true}]), false)]
    #[case::not_controlled_by_it(json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u"}]), false)]
    #[case::of_another_group(json!([{"apiVersion": "example.org/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]), false)]
    fn the_legacy_proxy_is_controlled_by_its_daemon_set(#[case] owners: Value, #[case] want: bool) {
        let spec = json!({"hostNetwork": true, "containers": [{"name": "p", "command": ["multus-proxy"]}]});
        let mut pod = pod("[]", &spec, &json!({}));
        pod.metadata.labels = Some([("app".to_owned(), "multus-proxy".to_owned())].into());
        pod.metadata.owner_references = serde_json::from_value(owners).unwrap();
        let Some(NodePod::LegacyProxy { of_a_daemon_set, .. }) = NodePod::parse(&pod) else {
            panic!("it looks like it");
        };
        assert_eq!(of_a_daemon_set, want);
    }

    #[rstest]
    #[case::host_network(json!({"containers": [], "hostNetwork": true}), json!({}))]
    #[case::succeeded(json!({"containers": []}), json!({"phase": "Succeeded"}))]
    #[case::failed(json!({"containers": []}), json!({"phase": "Failed"}))]
    fn a_pod_without_a_namespace_of_its_own_is_not(#[case] spec: Value, #[case] status: Value) {
        assert_eq!(LocalPod::parse(&pod(ATTACHED, &spec, &status)), None);
    }

    #[test]
    fn a_malformed_annotation_is_a_reason_not_a_panic() {
        let pod = LocalPod::parse(&pod("{{{", &json!({"containers": []}), &json!({}))).unwrap();
        assert!(pod.attachments.unwrap_err().contains("network-status"));
    }

    #[test]
    fn a_pod_without_its_annotation_has_no_attachments() {
        let mut without = pod(
            ATTACHED,
            &json!({"containers": []}),
            &json!({"podIP": "10.128.0.7"}),
        );
        without.metadata.annotations = None;
        let pod = LocalPod::parse(&without).unwrap();
        assert_eq!((pod.attachments, pod.addresses.len()), (Ok(Vec::new()), 1));
    }

    #[test]
    fn a_static_pod_has_its_own_uid_at_the_runtime() {
        let mut mirror = pod(ATTACHED, &json!({"containers": []}), &json!({}));
        mirror
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(STATIC_UID_ANNOTATION.to_owned(), "u-file".to_owned());
        let pod = LocalPod::parse(&mirror).unwrap();
        assert_eq!((pod.uid.as_str(), pod.runtime_uid.as_str()), ("u-1", "u-file"));
    }

    #[test]
    fn a_recreated_sandbox_changes_the_mark() {
        let status = |id: &str| json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "containerID": id}]});
        let parse =
            |id: &str| LocalPod::parse(&pod(ATTACHED, &json!({"containers": []}), &status(id))).unwrap();
        assert_ne!(parse("containerd://1"), parse("containerd://2"));
        assert_eq!(parse("containerd://1"), parse("containerd://1"));
    }
}
