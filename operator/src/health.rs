//! What is wrong with the pods of an operand, and on which nodes.
//!
//! Pure. What a tenant can bring about (a pod that cannot be served) is no fault of a node: see `api::rules_applied`.

use crate::nodes::{is_of, is_ready};
use crate::operands::Operands;
use crate::status::workloads;
use api::config::{BackendNodes, UnhealthyNode};
use api::names::{CONTROLLER, PROXY, RULES_APPLIED_CONDITION};
use api::rules_applied::{self, Reason};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// A container that ran this long after a crash is taken to have recovered, and one that is not ready by then to be at fault.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);
/// Restarts after which a running container may be between two crashes.
const CRASHES: i32 = 3;
/// Where the DaemonSet controller counts templates; its pods carry the number as a label.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Longest message of one node.
const MESSAGE_LIMIT: usize = 300;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It ends again and again.
    CrashLooping,
    /// Its image cannot be had.
    ImagePullFailed,
    /// Pods may not be created: PodSecurity, SecurityContextConstraints, quota.
    PodsForbidden,
    /// It runs but does not serve, or cannot start for another reason.
    NotServing,
}

/// Trouble on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub trouble: Trouble,
    /// Where and why.
    pub node: UnhealthyNode,
}

/// Every pod that does not work although its node does, in the order of nodes.
pub fn findings<'a>(pods: impl Iterator<Item = &'a Pod>, nodes: &[Node], now: Timestamp) -> Vec<Finding> {
    let away: BTreeSet<_> = nodes
        .iter()
        .filter(|node| !is_up(node))
        .map(ResourceExt::name_any)
        .collect();
    let mut found: Vec<_> = pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| !away.contains(node_of(pod)))
        .filter_map(|pod| finding(pod, now))
        .collect();
    found.sort_by(|one, other| one.node.cmp(&other.node));
    found
}

fn finding(pod: &Pod, now: Timestamp) -> Option<Finding> {
    let (trouble, reason, message) = of_containers(pod, now)
        .or_else(|| of_scheduling(pod))
        .or_else(|| of_rules(pod))
        .or_else(|| of_readiness(pod, now))?;
    Some(Finding {
        trouble,
        node: UnhealthyNode {
            name: node_of(pod).to_owned(),
            reason,
            message: cut(&message),
        },
    })
}

type Cause = (Trouble, String, String);

fn of_containers(pod: &Pod, now: Timestamp) -> Option<Cause> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers
        .into_iter()
        .find_map(|container| of_container(container, now))
}

fn of_container(container: &ContainerStatus, now: Timestamp) -> Option<Cause> {
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        let trouble = match reason.as_str() {
            "CrashLoopBackOff" => {
                return Some((Trouble::CrashLooping, reason, last_words(container)));
            }
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => Trouble::ImagePullFailed,
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Trouble::NotServing
            }
            _ => return None,
        };
        return Some((trouble, reason, waiting.message.unwrap_or_default()));
    }
    // Between two crashes it runs for a moment.
    let started = state.running.and_then(|running| running.started_at);
    let recovers = started.is_some_and(|started| now.duration_since(started.0) < PATIENCE);
    (container.restart_count >= CRASHES && (recovers || state.terminated.is_some())).then(|| {
        (
            Trouble::CrashLooping,
            "CrashLoopBackOff".to_owned(),
            last_words(container),
        )
    })
}

/// How the container ended last time.
fn last_words(container: &ContainerStatus) -> String {
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

fn of_scheduling(pod: &Pod) -> Option<Cause> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let reason = scheduled.reason.clone().unwrap_or_default();
    Some((
        Trouble::NotServing,
        reason,
        scheduled.message.clone().unwrap_or_default(),
    ))
}

fn of_rules(pod: &Pod) -> Option<Cause> {
    let applied = condition(pod, RULES_APPLIED_CONDITION).filter(|condition| condition.status == "False")?;
    let reason = Reason::parse(applied.reason.as_deref()?).filter(|reason| reason.is_node_level())?;
    Some((
        Trouble::NotServing,
        reason.to_string(),
        applied.message.clone().unwrap_or_default(),
    ))
}

fn of_readiness(pod: &Pod, now: Timestamp) -> Option<Cause> {
    if is_ready(pod) {
        return None;
    }
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let since = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let since = since.map_or(started, |since| since.0.max(started));
    (now.duration_since(since) >= PATIENCE).then(|| {
        (
            Trouble::NotServing,
            "NotReady".to_owned(),
            format!("pod {} is not ready", pod.name_any()),
        )
    })
}

/// Nodes whose proxy is not the one that the DaemonSet describes now, or not ready, sorted; those of the controller while that is
/// what is rolled out.
pub fn behind<'a>(pods: impl Iterator<Item = &'a Pod>, live: &Operands) -> Vec<String> {
    let is_controllers_turn = live
        .controller()
        .is_some_and(workloads::controller_is_rolling_out);
    let operand = if is_controllers_turn { CONTROLLER } else { PROXY };
    let generation = live
        .proxy()
        .and_then(|proxy| proxy.annotations().get(TEMPLATE_GENERATION));
    let is_old = |pod: &Pod| {
        let of = pod.labels().get("pod-template-generation");
        of.zip(generation)
            .is_some_and(|(of, generation)| of != generation)
    };
    let nodes: BTreeSet<_> = pods
        .filter(|pod| is_of(pod, operand))
        .filter(|pod| !is_ready(pod) || is_old(pod))
        .map(|pod| node_of(pod).to_owned())
        .filter(|node| !node.is_empty())
        .collect();
    nodes.into_iter().collect()
}

/// Nodes by the backend that their proxy reports, the most used first.
pub fn backends<'a>(pods: impl Iterator<Item = &'a Pod>) -> Vec<BackendNodes> {
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

/// Whether the node is there at all. One that is not is no fault of an operand.
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

/// At most as many characters as a message may have.
fn cut(text: &str) -> String {
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

    fn found(status: &Value, now: i64) -> Option<(Trouble, String, String)> {
        findings([pod(status)].iter(), &[], at(now))
            .pop()
            .map(|Finding { trouble, node }| (trouble, node.reason, node.message))
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
    #[case::crashes(waiting("CrashLoopBackOff"), 4, Some((Trouble::CrashLooping, "CrashLoopBackOff", "exit code 2, 4 restarts: cannot bind")))]
    #[case::no_image(waiting("ImagePullBackOff"), 0, Some((Trouble::ImagePullFailed, "ImagePullBackOff", "why")))]
    #[case::no_secret(waiting("CreateContainerConfigError"), 0, Some((Trouble::NotServing, "CreateContainerConfigError", "why")))]
    #[case::starts(waiting("ContainerCreating"), 0, None)]
    #[case::runs_between_crashes(json!({ "running": { "startedAt": at(0).to_string() } }), 3, Some((Trouble::CrashLooping, "CrashLoopBackOff", "exit code 2, 3 restarts: cannot bind")))]
    #[case::was_restarted_once(json!({ "running": { "startedAt": at(0).to_string() } }), 1, None)]
    fn of_a_container(
        #[case] state: Value,
        #[case] restarts: i32,
        #[case] want: Option<(Trouble, &str, &str)>,
    ) {
        let found = found(&container(&state, restarts), 60);
        assert_eq!(
            found
                .as_ref()
                .map(|(trouble, reason, message)| (*trouble, reason.as_str(), message.as_str())),
            want
        );
    }

    #[test]
    fn a_container_that_runs_on_has_recovered() {
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
    #[case::all_is_well("True", "Applied", None)]
    #[case::a_tenants_pod_cannot_be_served("False", "PartiallyApplied", None)]
    #[case::the_kernel_lacks_all("False", "NoSupportedBackend", Some("NoSupportedBackend"))]
    #[case::no_runtime("False", "ContainerRuntimeUnavailable", Some("ContainerRuntimeUnavailable"))]
    #[case::a_reason_of_tomorrow("False", "Later", None)]
    fn of_the_proxys_own_condition(#[case] status: &str, #[case] reason: &str, #[case] want: Option<&str>) {
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
    fn of_a_pod_that_is_not_ready(#[case] now: i64, #[case] want: Option<&str>) {
        let status = json!({ "startTime": at(-99).to_string(), "conditions": [
            { "type": "Ready", "status": "False", "lastTransitionTime": at(0).to_string() }] });
        assert_eq!(found(&status, now).map(|(_, reason, _)| reason).as_deref(), want);
    }

    #[test]
    fn a_node_that_is_away_and_a_pod_that_goes_are_no_trouble() {
        let broken = pod(&container(&waiting("CrashLoopBackOff"), 9));
        let away: Node = serde_json::from_value(json!({
            "metadata": { "name": "a" }, "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] },
        }))
        .unwrap();
        assert_eq!(findings([broken.clone()].iter(), &[away], at(0)), []);
        let mut going = broken;
        going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        assert_eq!(findings([going].iter(), &[], at(0)), []);
    }

    #[test]
    fn backends_are_counted() {
        let pods = [
            rules("True", "Applied", "iptables-nft: pods with rules: 1"),
            rules(
                "False",
                "PartiallyApplied",
                "nftables: pods with rules: 1; not served: 1",
            ),
            rules("True", "Applied", "nftables: pods with rules: 1"),
            rules("False", "Starting", "reading the cluster"),
        ]
        .map(|status| pod(&status));
        let counted: Vec<_> = backends(pods.iter())
            .into_iter()
            .map(|backend| (backend.name, backend.nodes))
            .collect();
        assert_eq!(counted, [("NFTables".to_owned(), 2), ("IPTables".to_owned(), 1)]);
    }
}
