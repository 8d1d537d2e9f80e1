//! Pods and nodes with only the fields that decisions read.
//!
//! Pure. A field that a decision starts to read must be added here: `reduced_objects_decide_alike` compares both forms. An object that
//! cannot be decoded is reduced to its metadata.

use api::names::{GROUP, RULES_APPLIED_CONDITION};
use k8s_openapi::api::core::v1::{
    ContainerStatus, Node, NodeCondition, NodeSpec, NodeStatus, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use process::watch::Guarded;

/// Conditions of a pod that decisions read.
const POD_CONDITIONS: [&str; 3] = ["Ready", "PodScheduled", RULES_APPLIED_CONDITION];
/// The condition of a node that decisions read.
const NODE_CONDITION: &str = "Ready";

/// Reduces a pod.
pub(crate) fn pod(pod: &Guarded<Pod>) -> Pod {
    let read = pod.0.as_ref().ok();
    Pod {
        metadata: metadata(pod.meta()),
        spec: read.and_then(|pod| pod.spec.as_ref()).map(|spec| PodSpec {
            node_name: spec.node_name.clone(),
            ..PodSpec::default()
        }),
        status: read.and_then(|pod| pod.status.as_ref()).map(pod_status),
    }
}

fn pod_status(status: &PodStatus) -> PodStatus {
    let conditions = status.conditions.iter().flatten();
    let containers = status.container_statuses.iter().flatten();
    PodStatus {
        start_time: status.start_time.clone(),
        conditions: Some(
            conditions
                .filter(|condition| POD_CONDITIONS.contains(&condition.type_.as_str()))
                .map(pod_condition)
                .collect(),
        ),
        container_statuses: Some(containers.map(container_status).collect()),
        ..PodStatus::default()
    }
}

fn pod_condition(condition: &PodCondition) -> PodCondition {
    PodCondition {
        last_probe_time: None,
        observed_generation: None,
        ..condition.clone()
    }
}

fn container_status(container: &ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        restart_count: container.restart_count,
        state: container.state.clone(),
        last_state: container.last_state.clone(),
        ..ContainerStatus::default()
    }
}

/// Reduces a node.
pub(crate) fn node(node: &Guarded<Node>) -> Node {
    let read = node.0.as_ref().ok();
    Node {
        metadata: metadata(node.meta()),
        spec: read.and_then(|node| node.spec.as_ref()).map(|spec| NodeSpec {
            taints: spec.taints.clone(),
            ..NodeSpec::default()
        }),
        status: read.and_then(|node| node.status.as_ref()).map(node_status),
    }
}

/// Without the heartbeat, which changes all the time.
fn node_status(status: &NodeStatus) -> NodeStatus {
    let conditions = status.conditions.iter().flatten();
    NodeStatus {
        conditions: Some(
            conditions
                .filter(|condition| condition.type_ == NODE_CONDITION)
                .map(|condition| NodeCondition {
                    type_: condition.type_.clone(),
                    status: condition.status.clone(),
                    ..NodeCondition::default()
                })
                .collect(),
        ),
        ..NodeStatus::default()
    }
}

fn metadata(metadata: &ObjectMeta) -> ObjectMeta {
    let annotations = metadata.annotations.iter().flatten();
    let own = annotations.filter(|(key, _)| key.starts_with(GROUP));
    ObjectMeta {
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        annotations: Some(own.map(|(key, value)| (key.clone(), value.clone())).collect()),
        deletion_timestamp: metadata.deletion_timestamp.clone(),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::CLEANUP_ANNOTATION;
    use crate::cleanup::node_labels::{Goal, LABEL, PRESENT, label_changes};
    use crate::operands::Operands;
    use crate::pod_health;
    use crate::scheduling::is_schedulable;
    use api::names::{CLEANUP, PROXY};
    use k8s_openapi::jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};

    const SINCE: &str = "2026-01-01T00:00:00Z";

    fn full_node(name: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { LABEL: PRESENT, "zone": "a" }, "annotations": { "large": "x" }, "resourceVersion": "7" },
            "spec": { "taints": [{ "key": "dedicated", "effect": "NoSchedule" }], "podCIDR": "192.0.2.0/24" },
            "status": {
                "images": [{ "names": ["i"] }],
                "conditions": [
                    { "type": "DiskPressure", "status": "True", "lastHeartbeatTime": SINCE },
                    { "type": "Ready", "status": ready, "lastHeartbeatTime": SINCE },
                ],
            },
        }))
        .unwrap()
    }

    fn full_pod(operand: &str, annotation: &str, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "n", "resourceVersion": "7", "annotations": { annotation: SINCE, "large": "x" },
                "labels": { "app.kubernetes.io/name": operand, "pod-template-generation": "2" },
            },
            "spec": { "nodeName": "a", "containers": [{ "name": "c", "image": "i" }] },
            "status": status,
        }))
        .unwrap()
    }

    fn ready(status: &str) -> Value {
        json!({ "type": "Ready", "status": status, "lastTransitionTime": SINCE })
    }

    /// Everything that is decided from a pod and a node.
    fn decisions(pod: &Pod, node: &Node) -> String {
        let (pods, nodes) = ([pod.clone()], [node.clone()]);
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let live = Operands {
            daemon_sets: serde_json::from_value(json!([{ "metadata": {
                "name": PROXY, "annotations": { "deprecated.daemonset.template.generation": "3" },
            }}]))
            .unwrap(),
            ..Operands::default()
        };
        let serve: PodSpec = serde_json::from_value(json!({
            "containers": [], "nodeSelector": { "zone": "a" }, "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
        }))
        .unwrap();
        format!(
            "{:?}",
            (
                pod_health::node_failures(pods.iter(), &nodes, now),
                pod_health::outdated_nodes(pods.iter(), &live),
                pod_health::backends(pods.iter()),
                [Goal::Serve(&serve), Goal::Clean(Some(SINCE)), Goal::GiveUp(None)]
                    .map(|goal| label_changes(&nodes, &pods, goal)),
                is_schedulable(&serve, node),
            )
        )
    }

    #[rstest]
    #[case::ready(PROXY, json!({ "conditions": [ready("True")] }))]
    #[case::unready(PROXY, json!({ "startTime": SINCE, "conditions": [ready("False")] }))]
    #[case::unscheduled(PROXY, json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no port" }] }))]
    #[case::crashes(PROXY, json!({ "conditions": [ready("True")], "containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 7,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": { "terminated": { "exitCode": 2, "message": "why" } },
    }]}))]
    #[case::reports_its_backend(PROXY, json!({ "conditions": [ready("True"), {
        "type": RULES_APPLIED_CONDITION, "status": "True", "reason": "Applied", "message": "Rules are applied in 1 pod (backend nftables)",
    }]}))]
    #[case::reports_a_failure(PROXY, json!({ "conditions": [ready("True"), {
        "type": RULES_APPLIED_CONDITION, "status": "False", "reason": "NoSupportedBackend", "message": "why",
    }]}))]
    #[case::cleans_up(CLEANUP, json!({ "conditions": [ready("True")] }))]
    fn reduced_objects_decide_alike(#[case] operand: &str, #[case] status: Value) {
        for annotation in [CLEANUP_ANNOTATION, "other"] {
            for node_ready in ["True", "Unknown"] {
                let (full_pod, full_node) =
                    (full_pod(operand, annotation, &status), full_node("a", node_ready));
                let (pod, node) = (
                    pod(&Guarded(Ok(full_pod.clone()))),
                    node(&Guarded(Ok(full_node.clone()))),
                );
                assert_eq!(decisions(&pod, &node), decisions(&full_pod, &full_node));
            }
        }
    }
}
