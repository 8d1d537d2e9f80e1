//! Counts of the status: pods of Deployment and DaemonSet, failed nodes by cause.
//!
//! Pure.

use crate::pod_health::NodeFailure;
use api::config::{ControllerStatus, ProxyCause, ProxyStatus};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Limit of causes, as in the schema.
const MAX_CAUSES: usize = 10;
/// Limit of names of one cause, as in the schema.
const MAX_CAUSE_NAMES: usize = 5;
/// Reason of the entry that sums up the causes beyond the limit.
const OTHER: &str = "Other";

/// State of the controller.
pub(super) fn controller(deployment: &Deployment) -> ControllerStatus {
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    ControllerStatus {
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or_default(),
        updated: status.updated_replicas.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or_default(),
        available: status.available_replicas.unwrap_or_default(),
        image: spec.map(|spec| image(&spec.template)).unwrap_or_default(),
    }
}

/// State of the proxies, without the fields that come from their pods.
pub(super) fn proxy(daemon_set: &DaemonSet) -> ProxyStatus {
    let status = daemon_set.status.clone().unwrap_or_default();
    ProxyStatus {
        desired: status.desired_number_scheduled,
        current: status.current_number_scheduled,
        updated: status.updated_number_scheduled.unwrap_or_default(),
        ready: status.number_ready,
        available: status.number_available.unwrap_or_default(),
        unavailable: status.number_unavailable.unwrap_or_default(),
        image: daemon_set
            .spec
            .as_ref()
            .map(|spec| image(&spec.template))
            .unwrap_or_default(),
        ..ProxyStatus::default()
    }
}

/// Number and names of failed nodes by reason, the most frequent first. A failure whose node is not known has no name and is counted.
pub(super) fn causes(failures: &[NodeFailure]) -> Vec<ProxyCause> {
    let mut by_reason = BTreeMap::<&str, Nodes<'_>>::new();
    for NodeFailure { node, .. } in failures {
        by_reason.entry(&node.reason).or_default().add(&node.name);
    }
    let mut causes: Vec<_> = by_reason.into_iter().collect();
    // A stable sort: equal counts stay in the order of reasons.
    causes.sort_by_key(|(_, nodes)| Reverse(nodes.count));
    if causes.len() > MAX_CAUSES {
        let mut rest = Nodes::default();
        for (_, nodes) in causes.split_off(MAX_CAUSES - 1) {
            rest.count += nodes.count;
            rest.names.extend(nodes.names);
        }
        causes.push((OTHER, rest));
    }
    causes
        .into_iter()
        .map(|(reason, nodes)| nodes.cause(reason))
        .collect()
}

/// Nodes of one cause.
#[derive(Default)]
struct Nodes<'a> {
    count: usize,
    names: BTreeSet<&'a str>,
}

impl<'a> Nodes<'a> {
    fn add(&mut self, name: &'a str) {
        self.count += 1;
        if !name.is_empty() {
            self.names.insert(name);
        }
    }

    fn cause(self, reason: &str) -> ProxyCause {
        let names = self.names.into_iter().take(MAX_CAUSE_NAMES);
        ProxyCause {
            reason: reason.to_owned(),
            nodes: i32::try_from(self.count).unwrap_or(i32::MAX),
            names: names.map(str::to_owned).collect(),
        }
    }
}

fn image(template: &PodTemplateSpec) -> String {
    let container = template.spec.as_ref().and_then(|pod| pod.containers.first());
    container
        .and_then(|container| container.image.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_health::PodFailure;
    use api::config::UnhealthyNode;

    fn failures(of: &[(&str, &str)]) -> Vec<NodeFailure> {
        let failure = |&(name, reason): &(&str, &str)| NodeFailure {
            failure: PodFailure::NotServing,
            node: UnhealthyNode {
                name: name.to_owned(),
                reason: reason.to_owned(),
                message: "why".to_owned(),
            },
        };
        of.iter().map(failure).collect()
    }

    fn counted(of: &[(&str, &str)]) -> Vec<(String, i32, String)> {
        let causes = causes(&failures(of)).into_iter();
        causes
            .map(|cause| (cause.reason, cause.nodes, cause.names.join(" ")))
            .collect()
    }

    fn row(reason: &str, nodes: i32, names: &str) -> (String, i32, String) {
        (reason.to_owned(), nodes, names.to_owned())
    }

    #[test]
    fn causes_are_sorted_by_nodes_and_then_by_reason() {
        let found = counted(&[
            ("c", "NotReady"),
            ("b", "CrashLoopBackOff"),
            ("a", "ImagePullBackOff"),
            ("d", "NotReady"),
        ]);
        let want = [
            row("NotReady", 2, "c d"),
            row("CrashLoopBackOff", 1, "b"),
            row("ImagePullBackOff", 1, "a"),
        ];
        assert_eq!(found, want);
        assert_eq!(counted(&[]), []);
    }

    #[test]
    fn cause_names_the_first_five_nodes_and_counts_all() {
        let found = counted(&["f", "b", "a", "e", "d", "c"].map(|node| (node, "NotReady")));
        assert_eq!(found, [row("NotReady", 6, "a b c d e")]);
    }

    #[test]
    fn failure_of_an_unknown_node_is_counted_without_a_name() {
        let found = counted(&[
            ("", "FailedCreate"),
            ("a", "NotReady"),
            ("", "Unschedulable"),
            ("", "Unschedulable"),
        ]);
        assert_eq!(
            found,
            [
                row("Unschedulable", 2, ""),
                row("FailedCreate", 1, ""),
                row("NotReady", 1, "a")
            ]
        );
    }

    #[test]
    fn causes_beyond_the_limit_are_summed_up_in_the_last_one() {
        let reasons: Vec<_> = (10..22).map(|number| format!("Reason{number}")).collect();
        let nodes: Vec<_> = reasons.iter().map(|reason| reason.to_lowercase()).collect();
        let mut all: Vec<_> = nodes
            .iter()
            .zip(&reasons)
            .map(|(node, reason)| (node.as_str(), reason.as_str()))
            .collect();
        all.push(("z", "Reason21"));
        let found = counted(&all);
        assert_eq!(found.len(), 10);
        assert_eq!(found[0], row("Reason21", 2, "reason21 z"));
        assert_eq!(found[9], row("Other", 3, "reason18 reason19 reason20"));
        assert_eq!(found.iter().map(|(_, nodes, _)| nodes).sum::<i32>(), 13);
        let ten = counted(&all[..10]);
        assert!(ten.len() == 10 && ten.iter().all(|(reason, ..)| reason != "Other"));
    }
}
