//! Status of proxies by node: backend, readiness, problem.
//!
//! Pure.

use crate::explain::{pod_condition, why_not_ready};
use crate::facts::Cluster;
use api::names::RULES_APPLIED_CONDITION;
use api::rules_applied::{self, Reason};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

/// Status of one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    pub node: String,
    /// Its Pod.
    pub proxy: String,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Its backend, as `spec.proxy.backend` names it; `-` while it reports none.
    pub backend: String,
    /// Problem that its condition reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether an administrator has to repair the node; otherwise single pods are affected.
    pub is_node_level: bool,
}

/// Returns one line per proxy, sorted by node, problems first.
pub(super) fn nodes(cluster: &Cluster) -> Vec<NodeLine> {
    let mut lines: Vec<NodeLine> = cluster.proxies.iter().flatten().map(line).collect();
    lines.sort_by_key(|line| (line.problem.is_none(), line.node.clone()));
    lines
}

fn line(pod: &Pod) -> NodeLine {
    let ready = pod_condition(pod, "Ready");
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    let applied = pod_condition(pod, RULES_APPLIED_CONDITION);
    let reason = applied.and_then(|applied| applied.reason.clone());
    let backend = applied
        .and_then(|applied| rules_applied::backend(applied.reason.as_deref()?, applied.message.as_deref()?));
    let not_applied = applied.filter(|applied| applied.status == "False");
    let problem = match not_applied {
        Some(applied) => Some(format!(
            "{}: {}",
            applied.reason.as_deref().unwrap_or_default(),
            applied.message.as_deref().unwrap_or_default()
        )),
        None if !is_ready => Some(format!("its proxy is not ready: {}", why_not_ready(pod, ready))),
        None => None,
    };
    let of_reason = reason
        .as_deref()
        .and_then(Reason::parse)
        .is_some_and(Reason::is_node_level);
    NodeLine {
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        proxy: pod.metadata.name.clone().unwrap_or_default(),
        is_ready,
        backend: backend.unwrap_or("-").to_owned(),
        problem,
        is_node_level: of_reason || !is_ready,
    }
}
