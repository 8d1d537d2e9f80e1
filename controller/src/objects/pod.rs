//! The fields of a Pod that decisions read.
//!
//! Pure. Fields that no decision reads are dropped while parsing: a cluster's pods fit in memory, and a status heartbeat is no change.

use super::Labels;
use super::metadata::metadata;
use api::ObjectName;
use api::names::NETWORK_STATUS_ANNOTATION;
use api::network_status::{self, Fault};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as FullPod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Deserialize;
use std::net::IpAddr;

/// The fields of a Pod that are parsed.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = FullPod)]
pub struct PodObject {
    #[serde(default, deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    hostname: Option<String>,
    subdomain: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    ports: Vec<Port>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Clone, Debug)]
struct Port {
    name: Option<String>,
    #[serde(rename = "containerPort")]
    number: u16,
    protocol: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    address: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: Option<Time>,
}

/// The part of a Pod that decisions read.
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// UID: another Pod of the same name is another endpoint.
    pub uid: Box<str>,
    /// Labels, for selectors.
    pub labels: Labels,
    /// Creation time; decides which of two pods with one address keeps it.
    pub created: Option<Timestamp>,
    /// Phase Succeeded or Failed: it will never serve again.
    pub is_finished: bool,
    /// It has an address on the cluster network, so a sandbox.
    pub has_sandbox: bool,
    /// `spec.hostNetwork`: no network plugin is called for it, so Multus never attaches it.
    pub is_on_host_network: bool,
    /// It is terminating.
    pub is_terminating: bool,
    /// Condition Ready.
    pub is_ready: bool,
    /// Last transition of condition Ready.
    pub ready_changed: Option<Timestamp>,
    /// The node it runs on.
    pub node: Option<Box<str>>,
    /// `spec.hostname`.
    pub hostname: Option<Box<str>>,
    /// `spec.subdomain`.
    pub subdomain: Option<Box<str>>,
    /// Named ports of its containers, in the order in which a name is looked up.
    pub ports: Box<[NamedPort]>,
    /// Its interfaces on secondary networks, in the plugin's order; or why the annotation cannot be read.
    pub attachments: Result<Box<[Attachment]>, Box<str>>,
    /// Parts of the annotation that cannot be parsed.
    pub faults: Box<[Fault]>,
}

/// A container port that a Service can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: Box<str>,
    /// `protocol`, TCP when absent.
    pub protocol: Box<str>,
    /// `containerPort`.
    pub number: u16,
}

/// One interface of a pod on a secondary network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `namespace/name` of the network attachment.
    pub network: Box<str>,
    /// Its addresses, in the plugin's order.
    pub addresses: Box<[IpAddr]>,
}

impl Pod {
    pub fn key(&self) -> ObjectName {
        ObjectName::new(&*self.namespace, &*self.name)
    }
}

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let PodObject {
            mut metadata,
            spec,
            status,
        } = object;
        let (attachments, faults) = match attachments(&metadata) {
            Ok((attachments, faults)) => (Ok(attachments), faults),
            Err(error) => (Err(error), Box::default()),
        };
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        Self {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default().into(),
            uid: metadata.uid.unwrap_or_default().into(),
            labels: metadata.labels.take().into(),
            created: metadata.creation_timestamp.map(|Time(at)| at),
            is_finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            has_sandbox: status.address.is_some_and(|ip| !ip.is_empty()),
            is_on_host_network: spec.host_network,
            is_terminating: metadata.deletion_timestamp.is_some(),
            is_ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready
                .and_then(|c| c.last_transition_time.as_ref())
                .map(|Time(at)| *at),
            ports: named_ports(&spec),
            node: set(spec.node_name),
            hostname: set(spec.hostname),
            subdomain: set(spec.subdomain),
            attachments,
            faults,
        }
    }
}

fn set(text: Option<String>) -> Option<Box<str>> {
    text.filter(|text| !text.is_empty()).map(Into::into)
}

/// Containers first, then sidecars (init containers that keep running, KEP-753), in the order in which Kubernetes resolves a name.
fn named_ports(spec: &Spec) -> Box<[NamedPort]> {
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports);
    ports
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.as_deref().filter(|name| !name.is_empty())?.into(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                number: port.number,
            })
        })
        .collect()
}

type Read = (Box<[Attachment]>, Box<[Fault]>);

fn attachments(metadata: &ObjectMeta) -> Result<Read, Box<str>> {
    let Some(text) = metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(NETWORK_STATUS_ANNOTATION))
    else {
        return Ok(Read::default());
    };
    let parsed = network_status::parse(text).map_err(|error| error.to_string().into_boxed_str())?;
    // The cluster network's entry has no slash in its name, or cannot be named by a Service anyway.
    let secondary = parsed
        .statuses
        .into_iter()
        .filter(|status| status.network.contains('/'));
    let attachments = secondary.map(|status| Attachment {
        network: status.network.into(),
        addresses: status.addresses.into(),
    });
    Ok((attachments.collect(), parsed.faults.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn pod(object: serde_json::Value) -> Pod {
        serde_json::from_value::<PodObject>(object).unwrap().into()
    }

    #[test]
    fn a_pod_keeps_the_fields_that_decisions_read() {
        let parsed = pod(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "annotations": {NETWORK_STATUS_ANNOTATION: r#"[{"name":"ovn-kubernetes","ips":["10.128.0.7"],"default":true},
                    {"name":"shop/macvlan1","interface":"net1","ips":["10.1.0.2","fd00:1::2"]}]"#}},
            "spec": {"nodeName": "node-1", "hostname": "web-0", "subdomain": "web", "containers": [
                {"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 1}]}]},
            "status": {"phase": "Running", "podIP": "10.128.0.7", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:05:00Z"}]},
        }));
        assert_eq!(parsed.key().to_string(), "shop/web-0");
        assert!(parsed.is_ready && parsed.has_sandbox && !parsed.is_finished && !parsed.is_terminating);
        assert_eq!(
            parsed.ready_changed,
            Some("2026-01-02T03:05:00Z".parse().unwrap())
        );
        assert_eq!(parsed.ports.len(), 1);
        assert_eq!(
            (
                &*parsed.ports[0].name,
                &*parsed.ports[0].protocol,
                parsed.ports[0].number
            ),
            ("http", "TCP", 8080)
        );
        let attachments = parsed.attachments.unwrap();
        assert_eq!(attachments.len(), 1);
        assert_eq!(&*attachments[0].network, "shop/macvlan1");
        assert_eq!(attachments[0].addresses.len(), 2);
    }

    #[test]
    fn fields_that_no_decision_reads_are_not_parsed() {
        let parsed: PodObject = serde_json::from_value(json!({
            "metadata": {"name": "p", "resourceVersion": "7", "managedFields": 7, "finalizers": 7,
                "annotations": {"big": 7, NETWORK_STATUS_ANNOTATION: "[]"}},
            "spec": {"containers": [{"image": 7, "env": 7}], "volumes": 7}, "status": {"hostIP": 7},
        }))
        .unwrap();
        let annotations = parsed.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations.len(), 1);
        assert_eq!(
            parsed.metadata.resource_version.as_deref(),
            Some("7"),
            "the watch goes on from it"
        );
    }

    #[test]
    fn ports_of_sidecars_count_and_those_of_init_containers_do_not() {
        let parsed = pod(json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"ports": [{"name": "http", "containerPort": 80}]}],
        "initContainers": [
            {"ports": [{"name": "setup", "containerPort": 1}]},
            {"restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15001, "protocol": "UDP"}]},
        ]}}));
        let names: Vec<_> = parsed.ports.iter().map(|port| &*port.name).collect();
        assert_eq!(names, ["http", "mesh"]);
    }

    #[rstest]
    #[case::pending("Pending", false)]
    #[case::running("Running", false)]
    #[case::succeeded("Succeeded", true)]
    #[case::failed("Failed", true)]
    #[case::unknown("Unknown", false)]
    #[case::none("", false)]
    fn a_pod_that_has_ended_is_finished(#[case] phase: &str, #[case] want: bool) {
        let parsed = pod(json!({"metadata": {"name": "p"}, "status": {"phase": phase}}));
        assert_eq!(parsed.is_finished, want);
    }

    #[test]
    fn a_malformed_annotation_is_kept_as_its_error() {
        let parsed =
            pod(json!({"metadata": {"name": "p", "annotations": {NETWORK_STATUS_ANNOTATION: "{{{"}}}));
        assert!(parsed.attachments.unwrap_err().contains("network-status"));
    }

    #[test]
    fn a_change_that_no_decision_reads_is_no_change() {
        let at = |version: &str, image: &str| {
            pod(
                json!({"metadata": {"name": "p", "resourceVersion": version, "annotations": {"note": version}},
                "spec": {"containers": [{"image": image}]}, "status": {"phase": "Running", "hostIP": version}}),
            )
        };
        assert_eq!(at("1", "a"), at("2", "b"));
    }
}
