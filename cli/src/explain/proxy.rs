//! Links about the proxy on the client's node, by the conditions of its Pod.
//!
//! Pure.

use super::case::Case;
use crate::chain::{Link, Topic};
use crate::facts::{node_of, phase_of};
use crate::situations::{Cause, Values};
use api::names::RULES_APPLIED_CONDITION;
use api::rules_applied::{self, Reason};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// Returns the links about the proxy.
pub(super) fn proxy(case: &Case<'_>) -> Vec<Link> {
    let Some(node) = case.node() else {
        return Vec::new();
    };
    let proxies = match &case.facts.cluster.proxies {
        Err(read_error) => return vec![Link::unknown(Topic::Proxy, read_error.to_string())],
        Ok(proxies) => proxies,
    };
    let values = case.values.clone().and("node", node);
    let on_node = |pod: &&Pod| node_of(pod) == Some(node);
    let mut here: Vec<&Pod> = proxies.iter().filter(on_node).collect();
    // During an update the old pod still exists.
    here.sort_by_key(|pod| pod.metadata.deletion_timestamp.is_some());
    vec![here.first().map_or_else(
        || Cause::ProxyMissing.broken(&values),
        |pod| of_pod(pod, node, values.clone()),
    )]
}

fn of_pod(pod: &Pod, node: &str, values: Values) -> Link {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let values = values.and("proxy", &name);
    let applied = pod_condition(pod, RULES_APPLIED_CONDITION);
    if let Some(applied) = applied.filter(|applied| applied.status == "False") {
        let reason = applied.reason.clone().unwrap_or_default();
        let message = applied.message.clone().unwrap_or_default();
        if Reason::parse(&reason).is_some_and(Reason::is_node_level) {
            let values = values.and("reason", format!("{reason}: {message}"));
            return Cause::NodeFault.broken(&values);
        }
        let link = Cause::RulesNotApplied.broken(&values).softened();
        return link.with([format!("{reason}: {message}")]);
    }
    let ready = pod_condition(pod, "Ready");
    if ready.is_none_or(|ready| ready.status != "True") {
        let values = values.and("reason", why_not_ready(pod, ready));
        return Cause::ProxyNotReady.broken(&values).softened();
    }
    let backend = applied
        .and_then(|applied| rules_applied::backend(applied.reason.as_deref()?, applied.message.as_deref()?));
    let backend = backend.map_or_else(
        || "its backend is not reported".to_owned(),
        |backend| format!("it uses {backend}"),
    );
    Link::good(Topic::Proxy, format!("{name} on node {node} is ready; {backend}"))
}

pub fn pod_condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_)
}

/// Returns the reason of the kubelet, such as `CrashLoopBackOff`.
pub fn why_not_ready(pod: &Pod, ready: Option<&PodCondition>) -> String {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let mut waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = || Some(format!("phase {}", phase_of(pod)?));
    let of_condition = || ready?.message.clone().or_else(|| ready?.reason.clone());
    waiting
        .next_back()
        .or_else(of_condition)
        .or_else(phase)
        .unwrap_or_else(|| "no status is reported".to_owned())
}
