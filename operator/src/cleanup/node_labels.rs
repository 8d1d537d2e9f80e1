//! The node label that records which nodes may hold rules.
//!
//! Pure. A node that no longer matches the proxy's scheduling loses its proxy, and with it every trace in the API of the rules in
//! its pods. The label persists that: [`PRESENT`] from before the first proxy until the node is known to be clean,
//! [`CLEANUP_PENDING`] while the cleanup DaemonSet is to run there. Administrators list such nodes with `kubectl get nodes -l
//! multusservice.cni.cncf.io/rules`.

use crate::cleanup::CLEANUP_ANNOTATION;
use crate::scheduling::is_schedulable;
use api::names::{CLEANUP, PROXY};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// Key of the label.
pub const LABEL: &str = api::names::RULES_LABEL;
/// A proxy runs, ran or will run on the node.
pub const PRESENT: &str = "present";
/// No proxy is to run on the node; its rules are to be removed.
pub const CLEANUP_PENDING: &str = "cleanup-pending";
/// Cleanup of the node timed out before the operands were removed.
pub const SKIPPED: &str = "skipped";

/// A label to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// Name of the node.
    pub node: String,
    /// The new value; `None` removes the label.
    pub label: Option<&'static str>,
}

/// Desired state of the nodes.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'a> {
    /// Run this pod on the nodes that match its scheduling.
    Serve(&'a PodSpec),
    /// Run no proxy; the proxies become cleanup pods with this annotation.
    Clean(Option<&'a str>),
    /// Skip nodes that are not clean yet.
    GiveUp(Option<&'a str>),
}

/// Computes the labels to change.
pub fn label_changes(nodes: &[Node], pods: &[Pod], goal: Goal<'_>) -> Vec<LabelChange> {
    let since = match goal {
        Goal::Serve(_) => None,
        Goal::Clean(since) | Goal::GiveUp(since) => since,
    };
    let busy = nodes_with(pods, |pod| is_pod_of(pod, PROXY));
    let clean = nodes_with(pods, |pod| is_clean(pod, since));
    let change = |node: &Node| {
        let name = node.name_any();
        let now = node.labels().get(LABEL).map(String::as_str);
        let (busy, clean) = (busy.contains(name.as_str()), clean.contains(name.as_str()));
        let label = match (goal, now) {
            (Goal::Serve(proxy), _) if busy || is_schedulable(proxy, node) => Some(PRESENT),
            (Goal::Serve(_), Some(now)) => (!(clean && now == CLEANUP_PENDING)).then_some(CLEANUP_PENDING),
            (Goal::Clean(_) | Goal::GiveUp(_), Some(_)) if clean => None,
            (Goal::Clean(_), _) if busy && !clean => Some(PRESENT),
            (Goal::GiveUp(_), Some(_)) | (Goal::Clean(_), Some(SKIPPED)) => Some(SKIPPED),
            (Goal::Clean(_), Some(_)) => Some(CLEANUP_PENDING),
            (_, None) => None,
        };
        (label != now).then_some(LabelChange { node: name, label })
    };
    nodes.iter().filter_map(change).collect()
}

/// True when the cleanup DaemonSet has nodes to clean once the changes are made.
pub fn any_cleanup_pending(nodes: &[Node], changes: &[LabelChange]) -> bool {
    let changes = changes.iter().map(|change| (change.node.as_str(), change.label));
    let changes: BTreeMap<_, _> = changes.collect();
    nodes.iter().any(|node| {
        let now = node.labels().get(LABEL).map(String::as_str);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        changes.get(name).copied().unwrap_or(now) == Some(CLEANUP_PENDING)
    })
}

/// True when the pod reports its node as clean: a Ready cleanup pod, or a proxy pod that became one with this annotation.
pub fn is_clean(pod: &Pod, since: Option<&str>) -> bool {
    let turned = since.is_some() && pod.annotations().get(CLEANUP_ANNOTATION).map(String::as_str) == since;
    is_ready(pod) && (is_pod_of(pod, CLEANUP) || is_pod_of(pod, PROXY) && turned)
}

/// True for pods of this operand.
pub fn is_pod_of(pod: &Pod, operand: &str) -> bool {
    pod.labels().get("app.kubernetes.io/name").map(String::as_str) == Some(operand)
}

/// True when the kubelet reports the pod as Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn nodes_with(pods: &[Pod], wanted: impl Fn(&Pod) -> bool) -> BTreeSet<&str> {
    pods.iter()
        .filter(|pod| wanted(pod))
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn node(label: Option<&str>, zone: &str) -> Node {
        let mut labels = json!({ "zone": zone });
        if let Some(label) = label {
            labels[LABEL] = json!(label);
        }
        serde_json::from_value(json!({ "metadata": { "name": "a", "labels": labels } })).unwrap()
    }

    fn pod(operand: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "labels": { "app.kubernetes.io/name": operand } },
            "spec": { "nodeName": "a", "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    /// The expected change of a label.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Want {
        Stays,
        Goes,
        Becomes(&'static str),
    }
    use Want::{Becomes, Goes, Stays};

    fn want(changes: &[LabelChange]) -> Want {
        match changes.first().map(|change| change.label) {
            None => Stays,
            Some(None) => Goes,
            Some(Some(label)) => Becomes(label),
        }
    }

    fn proxy() -> PodSpec {
        serde_json::from_value(json!({ "containers": [], "nodeSelector": { "zone": "in" } })).unwrap()
    }

    #[rstest]
    #[case::before_its_first_proxy(node(None, "in"), vec![], Becomes(PRESENT))]
    #[case::with_its_proxy(node(Some(PRESENT), "in"), vec![pod(PROXY, "True")], Stays)]
    #[case::unrelated_node(node(None, "out"), vec![], Stays)]
    #[case::unscheduled_node_with_a_running_proxy(node(Some(PRESENT), "out"), vec![pod(PROXY, "True")], Stays)]
    #[case::unscheduled_node_without_a_proxy(node(Some(PRESENT), "out"), vec![], Becomes(CLEANUP_PENDING))]
    #[case::unscheduled_node_during_cleanup(node(Some(CLEANUP_PENDING), "out"), vec![pod(CLEANUP, "False")], Stays)]
    #[case::unscheduled_node_after_cleanup(node(Some(CLEANUP_PENDING), "out"), vec![pod(CLEANUP, "True")], Goes)]
    #[case::rescheduled_node(node(Some(CLEANUP_PENDING), "in"), vec![pod(CLEANUP, "True")], Becomes(PRESENT))]
    #[case::unknown_label_value(node(Some("later"), "out"), vec![], Becomes(CLEANUP_PENDING))]
    fn node_label_during_an_installation(#[case] node: Node, #[case] pods: Vec<Pod>, #[case] expected: Want) {
        let nodes = [node];
        let changes = label_changes(&nodes, &pods, Goal::Serve(&proxy()));
        assert_eq!(want(&changes), expected);
    }

    fn turned(ready: &str) -> Pod {
        let mut pod = pod(PROXY, ready);
        pod.annotations_mut()
            .insert(CLEANUP_ANNOTATION.to_owned(), "then".to_owned());
        pod
    }

    #[rstest]
    #[case::a_proxy_runs(node(Some(PRESENT), "in"), vec![pod(PROXY, "True")], Stays, Becomes(SKIPPED))]
    #[case::unlabelled_node_with_a_proxy(node(None, "in"), vec![pod(PROXY, "True")], Becomes(PRESENT), Stays)]
    #[case::not_clean_yet(node(Some(PRESENT), "in"), vec![turned("False")], Stays, Becomes(SKIPPED))]
    #[case::clean(node(Some(PRESENT), "in"), vec![turned("True")], Goes, Goes)]
    #[case::no_pod(node(Some(PRESENT), "in"), vec![], Becomes(CLEANUP_PENDING), Becomes(SKIPPED))]
    #[case::skipped_before(node(Some(SKIPPED), "in"), vec![], Stays, Stays)]
    #[case::clean_unscheduled_node(node(Some(CLEANUP_PENDING), "out"), vec![pod(CLEANUP, "True")], Goes, Goes)]
    #[case::unrelated_node(node(None, "in"), vec![], Stays, Stays)]
    fn node_label_during_a_removal(
        #[case] node: Node,
        #[case] pods: Vec<Pod>,
        #[case] clean: Want,
        #[case] give_up: Want,
    ) {
        let nodes = [node];
        let label = |goal| want(&label_changes(&nodes, &pods, goal));
        assert_eq!(
            (
                label(Goal::Clean(Some("then"))),
                label(Goal::GiveUp(Some("then")))
            ),
            (clean, give_up)
        );
    }

    #[test]
    fn cleanup_runs_while_a_node_is_labelled_for_it() {
        let leaving = LabelChange {
            node: "a".to_owned(),
            label: Some(CLEANUP_PENDING),
        };
        let clean = LabelChange {
            node: "a".to_owned(),
            label: None,
        };
        assert!(any_cleanup_pending(&[node(Some(PRESENT), "in")], &[leaving]));
        assert!(any_cleanup_pending(&[node(Some(CLEANUP_PENDING), "in")], &[]));
        assert!(!any_cleanup_pending(
            &[node(Some(CLEANUP_PENDING), "in")],
            &[clean]
        ));
    }
}
