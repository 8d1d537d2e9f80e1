//! Scheduling of a DaemonSet's pods to nodes.
//!
//! Pure. The rules are those of Kubernetes' DaemonSet controller (`NodeShouldRunDaemonPod`): node selector, required node affinity,
//! taints. As there, an invalid expression matches no node.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Prefix of the taints of a node that joins, leaves or is under pressure. The DaemonSet controller tolerates them for its pods.
const TRANSIENT: &str = "node.kubernetes.io/";

/// True when a DaemonSet with this pod runs one on the node.
pub(crate) fn is_schedulable(pod: &PodSpec, node: &Node) -> bool {
    is_selected(pod, node) && taints(node).all(|taint| is_tolerated(pod, taint))
}

fn is_selected(pod: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let mut wanted = pod.node_selector.iter().flatten();
    if !wanted.all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = pod
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| is_met(term, node)))
}

/// An empty term matches nothing.
fn is_met(term: &NodeSelectorTerm, node: &Node) -> bool {
    let fields = BTreeMap::from([("metadata.name".to_owned(), node.name_any())]);
    let parts = [
        (&term.match_expressions, node.labels()),
        (&term.match_fields, &fields),
    ];
    let mut requirements = parts
        .iter()
        .flat_map(|(requirements, values)| {
            requirements
                .iter()
                .flatten()
                .map(|requirement| (requirement, *values))
        })
        .peekable();
    requirements.peek().is_some() && requirements.all(|(requirement, values)| holds(requirement, values))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let numbers = || Some((label?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => label.is_none_or(|label| !values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => numbers().is_some_and(|(label, value)| label > value),
        "Lt" => numbers().is_some_and(|(label, value)| label < value),
        _ => false,
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with(TRANSIENT))
}

fn is_tolerated(pod: &PodSpec, taint: &Taint) -> bool {
    pod.tolerations
        .iter()
        .flatten()
        .any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn runs_on_node(pod: Value) -> bool {
        let node = serde_json::from_value(json!({
            "metadata": { "name": "a", "labels": { "os": "linux", "rank": "5" } },
            "spec": { "taints": [
                { "key": "dedicated", "value": "db", "effect": "NoSchedule" },
                { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
                { "key": "slow", "effect": "PreferNoSchedule" },
            ]},
        }))
        .unwrap();
        let mut pod = pod;
        pod["containers"] = json!([]);
        is_schedulable(&serde_json::from_value(pod).unwrap(), &node)
    }

    fn required(terms: &Value) -> Value {
        json!({
            "tolerations": [{ "operator": "Exists" }],
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } },
        })
    }

    #[rstest]
    #[case::no_toleration(json!({}), false)]
    #[case::every_taint(json!({ "tolerations": [{ "operator": "Exists" }] }), true)]
    #[case::every_value(json!({ "tolerations": [{ "key": "dedicated", "operator": "Exists" }] }), true)]
    #[case::the_value(json!({ "tolerations": [{ "key": "dedicated", "value": "db" }] }), true)]
    #[case::another_value(json!({ "tolerations": [{ "key": "dedicated", "value": "web" }] }), false)]
    #[case::another_effect(json!({ "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }] }), false)]
    fn taints_are_matched_by_tolerations(#[case] pod: Value, #[case] want: bool) {
        assert_eq!(runs_on_node(pod), want);
    }

    #[rstest]
    #[case::same("linux", true)]
    #[case::other("windows", false)]
    fn node_selector_is_matched(#[case] value: &str, #[case] want: bool) {
        assert_eq!(
            runs_on_node(
                json!({ "nodeSelector": { "os": value }, "tolerations": [{ "operator": "Exists" }] })
            ),
            want
        );
    }

    #[rstest]
    #[case::is_in(json!([{ "matchExpressions": [{ "key": "os", "operator": "In", "values": ["linux"] }] }]), true)]
    #[case::not_in(json!([{ "matchExpressions": [{ "key": "os", "operator": "NotIn", "values": ["linux"] }] }]), false)]
    #[case::absent_is_not_in(json!([{ "matchExpressions": [{ "key": "x", "operator": "NotIn", "values": ["y"] }] }]), true)]
    #[case::exists(json!([{ "matchExpressions": [{ "key": "os", "operator": "Exists" }] }]), true)]
    #[case::does_not_exist(json!([{ "matchExpressions": [{ "key": "os", "operator": "DoesNotExist" }] }]), false)]
    #[case::greater(json!([{ "matchExpressions": [{ "key": "rank", "operator": "Gt", "values": ["4"] }] }]), true)]
    #[case::not_less(json!([{ "matchExpressions": [{ "key": "rank", "operator": "Lt", "values": ["5"] }] }]), false)]
    #[case::no_number(json!([{ "matchExpressions": [{ "key": "os", "operator": "Gt", "values": ["4"] }] }]), false)]
    #[case::by_name(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["a"] }] }]), true)]
    #[case::all_of_a_term(json!([{ "matchExpressions": [
        { "key": "os", "operator": "Exists" }, { "key": "x", "operator": "Exists" }] }]), false)]
    #[case::any_of_the_terms(json!([
        { "matchExpressions": [{ "key": "x", "operator": "Exists" }] },
        { "matchExpressions": [{ "key": "os", "operator": "Exists" }] }]), true)]
    #[case::an_empty_term(json!([{}]), false)]
    #[case::unknown_operator(json!([{ "matchExpressions": [{ "key": "os", "operator": "Like", "values": ["linux"] }] }]), false)]
    fn required_node_affinity_is_matched(#[case] terms: Value, #[case] want: bool) {
        assert_eq!(runs_on_node(required(&terms)), want);
    }
}
