//! Failures of an operand's pods, by node.
//!
//! Pure. Failures that a tenant can cause (a pod that cannot be served) are not failures of a node: see `api::rules_applied`.

use crate::cleanup::node_labels::{is_pod_of, is_ready};
use crate::operands::Operands;
use crate::workloads;
use api::config::{BackendNodes, UnhealthyNode};
use api::names::{CONTROLLER, PROXY, RULES_APPLIED_CONDITION};
use api::rules_applied::{self, Reason};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// A container that has run this long after a crash counts as recovered; one that is not ready by then counts as failed.
const GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(2);
/// Number of restarts from which a running container may be between two crashes.
const MIN_RESTARTS: i32 = 3;
/// Annotation in which the DaemonSet controller counts templates; its pods carry the number as a label.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Limit of the message of one node, in characters.
const MESSAGE_LIMIT: usize = 300;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PodFailure {
    /// The container exits repeatedly.
    CrashLooping,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// Pods are rejected by PodSecurity, SecurityContextConstraints or a quota.
    PodsForbidden,
    /// The pod runs but is not ready, or cannot start for another reason.
    NotServing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeFailure {
    /// The kind of the failure.
    pub failure: PodFailure,
    /// The node, with reason and message.
    pub node: UnhealthyNode,
}

/// Returns every failed pod on a ready node, sorted by node.
pub(crate) fn node_failures<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    nodes: &[Node],
    now: Timestamp,
) -> Vec<NodeFailure> {
    let away: BTreeSet<_> = nodes
        .iter()
        .filter(|node| !is_up(node))
        .map(ResourceExt::name_any)
        .collect();
    let mut found: Vec<_> = pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| !away.contains(node_of(pod)))
        .filter_map(|pod| node_failure(pod, now))
        .collect();
    found.sort_by(|one, other| one.node.cmp(&other.node));
    found
}

fn node_failure(pod: &Pod, now: Timestamp) -> Option<NodeFailure> {
    let (failure, reason, message) = any_container_failure(pod, now)
        .or_else(|| scheduling_failure(pod))
        .or_else(|| rules_failure(pod))
        .or_else(|| readiness_failure(pod, now))?;
    Some(NodeFailure {
        failure,
        node: UnhealthyNode {
            name: node_of(pod).to_owned(),
            reason,
            message: truncate(&message),
        },
    })
}

type Failure = (PodFailure, String, String);

fn any_container_failure(pod: &Pod, now: Timestamp) -> Option<Failure> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers
        .into_iter()
        .find_map(|container| container_failure(container, now))
}

fn container_failure(container: &ContainerStatus, now: Timestamp) -> Option<Failure> {
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        let failure = match reason.as_str() {
            "CrashLoopBackOff" => {
                return Some((PodFailure::CrashLooping, reason, termination_message(container)));
            }
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => PodFailure::ImagePullFailed,
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                PodFailure::NotServing
            }
            _ => return None,
        };
        return Some((failure, reason, waiting.message.unwrap_or_default()));
    }
    // The container runs for a moment between two crashes.
    let started = state.running.and_then(|running| running.started_at);
    let recovers = started.is_some_and(|started| now.duration_since(started.0) < GRACE_PERIOD);
    (container.restart_count >= MIN_RESTARTS && (recovers || state.terminated.is_some())).then(|| {
        (
            PodFailure::CrashLooping,
            "CrashLoopBackOff".to_owned(),
            termination_message(container),
        )
    })
}

/// Describes the last termination of the container.
fn termination_message(container: &ContainerStatus) -> String {
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let Some(last) = last else {
        return format!("restarted {} times", container.restart_count);
    };
    let message = last.message.as_deref().unwrap_or_default().trim();
    let line = message.lines().last().unwrap_or_default();
    let how = format!(
        "exit code {}, {} restarts",
        last.exit_code, container.restart_count
    );
    if line.is_empty() {
        how
    } else {
        format!("{how}: {line}")
    }
}

fn scheduling_failure(pod: &Pod) -> Option<Failure> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let reason = scheduled.reason.clone().unwrap_or_default();
    Some((
        PodFailure::NotServing,
        reason,
        scheduled.message.clone().unwrap_or_default(),
    ))
}

fn rules_failure(pod: &Pod) -> Option<Failure> {
    let applied = condition(pod, RULES_APPLIED_CONDITION).filter(|condition| condition.status == "False")?;
    let reason = Reason::parse(applied.reason.as_deref()?).filter(|reason| reason.is_node_level())?;
    Some((
        PodFailure::NotServing,
        reason.to_string(),
        applied.message.clone().unwrap_or_default(),
    ))
}

fn readiness_failure(pod: &Pod, now: Timestamp) -> Option<Failure> {
    if is_ready(pod) {
        return None;
    }
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let since = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let since = since.map_or(started, |since| since.0.max(started));
    (now.duration_since(since) >= GRACE_PERIOD).then(|| {
        (
            PodFailure::NotServing,
            "NotReady".to_owned(),
            format!("pod {} is not ready", pod.name_any()),
        )
    })
}

/// Nodes whose proxy is outdated or not ready, sorted; those of the controller during its rollout.
pub(crate) fn outdated_nodes<'a>(pods: impl Iterator<Item = &'a Pod>, live: &Operands) -> Vec<String> {
    let is_controller_rollout = live
        .controller()
        .is_some_and(workloads::controller_is_rolling_out);
    let operand = if is_controller_rollout { CONTROLLER } else { PROXY };
    let generation = live
        .proxy()
        .and_then(|proxy| proxy.annotations().get(TEMPLATE_GENERATION));
    let is_old = |pod: &Pod| {
        let of = pod.labels().get("pod-template-generation");
        of.zip(generation)
            .is_some_and(|(of, generation)| of != generation)
    };
    let nodes: BTreeSet<_> = pods
        .filter(|pod| is_pod_of(pod, operand))
        .filter(|pod| !is_ready(pod) || is_old(pod))
        .map(|pod| node_of(pod).to_owned())
        .filter(|node| !node.is_empty())
        .collect();
    nodes.into_iter().collect()
}

/// Counts nodes by the backend that their proxy reports, the most used first.
pub(crate) fn backends<'a>(pods: impl Iterator<Item = &'a Pod>) -> Vec<BackendNodes> {
    let mut nodes = BTreeMap::<&str, i32>::new();
    for pod in pods {
        let backend = condition(pod, RULES_APPLIED_CONDITION).and_then(|condition| {
            rules_applied::backend(condition.reason.as_deref()?, condition.message.as_deref()?)
        });
        if let Some(backend) = backend {
            *nodes.entry(backend).or_default() += 1;
        }
    }
    let mut backends: Vec<_> = nodes
        .into_iter()
        .map(|(name, nodes)| BackendNodes {
            name: name.to_owned(),
            nodes,
        })
        .collect();
    backends.sort_by_key(|backend| std::cmp::Reverse(backend.nodes));
    backends
}

/// True when the node is ready. A node that is not ready is not a failure of an operand.
fn is_up(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")
        .is_none_or(|condition| condition.status == "True")
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_)
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// Truncates a message to its limit.
fn truncate(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p" }, "spec": { "nodeName": "a", "containers": [] }, "status": status,
        }))
        .unwrap()
    }

    fn found(status: &Value, now: i64) -> Option<(PodFailure, String, String)> {
        node_failures([pod(status)].iter(), &[], at(now))
            .pop()
            .map(|NodeFailure { failure, node }| (failure, node.reason, node.message))
    }

    fn container(state: &Value, restarts: i32) -> Value {
        json!({ "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            "lastState": { "terminated": { "exitCode": 2, "message": "one\ncannot bind\n" } },
        }], "conditions": [{ "type": "Ready", "status": "True" }]})
    }

    fn waiting(reason: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": "why" } })
    }

    #[rstest]
    #[case::crashes(waiting("CrashLoopBackOff"), 4, Some((PodFailure::CrashLooping, "CrashLoopBackOff", "exit code 2, 4 restarts: cannot bind")))]
    #[case::no_image(waiting("ImagePullBackOff"), 0, Some((PodFailure::ImagePullFailed, "ImagePullBackOff", "why")))]
    #[case::no_secret(waiting("CreateContainerConfigError"), 0, Some((PodFailure::NotServing, "CreateContainerConfigError", "why")))]
    #[case::starts(waiting("ContainerCreating"), 0, None)]
    #[case::runs_between_crashes(json!({ "running": { "startedAt": at(0).to_string() } }), 3, Some((PodFailure::CrashLooping, "CrashLoopBackOff", "exit code 2, 3 restarts: cannot bind")))]
    #[case::was_restarted_once(json!({ "running": { "startedAt": at(0).to_string() } }), 1, None)]
    fn container_state_maps_to_a_failure(
        #[case] state: Value,
        #[case] restarts: i32,
        #[case] want: Option<(PodFailure, &str, &str)>,
    ) {
        let found = found(&container(&state, restarts), 60);
        assert_eq!(
            found
                .as_ref()
                .map(|(failure, reason, message)| (*failure, reason.as_str(), message.as_str())),
            want
        );
    }

    #[test]
    fn container_that_keeps_running_has_recovered() {
        let running = json!({ "running": { "startedAt": at(0).to_string() } });
        assert_eq!(found(&container(&running, 9), 120), None);
    }

    fn rules(status: &str, reason: &str, message: &str) -> Value {
        json!({ "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": RULES_APPLIED_CONDITION, "status": status, "reason": reason, "message": message },
        ]})
    }

    #[rstest]
    #[case::rules_are_applied("True", "Applied", None)]
    #[case::a_tenants_pod_cannot_be_served("False", "PartiallyApplied", None)]
    #[case::the_kernel_lacks_all("False", "NoSupportedBackend", Some("NoSupportedBackend"))]
    #[case::no_runtime("False", "ContainerRuntimeUnavailable", Some("ContainerRuntimeUnavailable"))]
    #[case::unknown_reason("False", "Later", None)]
    fn rules_applied_condition_maps_to_a_failure(
        #[case] status: &str,
        #[case] reason: &str,
        #[case] want: Option<&str>,
    ) {
        assert_eq!(
            found(&rules(status, reason, "why"), 0)
                .map(|(_, reason, _)| reason)
                .as_deref(),
            want
        );
    }

    #[rstest]
    #[case::for_a_moment(119, None)]
    #[case::for_long(120, Some("NotReady"))]
    fn pod_that_stays_unready_is_a_failure(#[case] now: i64, #[case] want: Option<&str>) {
        let status = json!({ "startTime": at(-99).to_string(), "conditions": [
            { "type": "Ready", "status": "False", "lastTransitionTime": at(0).to_string() }] });
        assert_eq!(found(&status, now).map(|(_, reason, _)| reason).as_deref(), want);
    }

    #[test]
    fn unready_node_and_terminating_pod_are_no_failures() {
        let broken = pod(&container(&waiting("CrashLoopBackOff"), 9));
        let away: Node = serde_json::from_value(json!({
            "metadata": { "name": "a" }, "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] },
        }))
        .unwrap();
        assert_eq!(node_failures([broken.clone()].iter(), &[away], at(0)), []);
        let mut going = broken;
        going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        assert_eq!(node_failures([going].iter(), &[], at(0)), []);
    }

    #[test]
    fn backends_are_counted() {
        let pods = [
            rules(
                "True",
                "Applied",
                "Rules are applied in 1 pod (backend iptables-nft)",
            ),
            rules(
                "False",
                "PartiallyApplied",
                "Rules are applied in 1 pod (backend nftables); 1 degraded: web/db: no network namespace",
            ),
            rules("True", "Applied", "Rules are applied in 1 pod (backend nftables)"),
            rules("False", "Starting", "initial sync"),
        ]
        .map(|status| pod(&status));
        let counted: Vec<_> = backends(pods.iter())
            .into_iter()
            .map(|backend| (backend.name, backend.nodes))
            .collect();
        assert_eq!(counted, [("NFTables".to_owned(), 2), ("IPTables".to_owned(), 1)]);
    }
}
