//! How far the removal of the operands has come.
//!
//! Pure, and a function of live objects alone, so that an operator that was restarted in the middle goes on where it was.
//! First every proxy becomes a clean-up (`proxy cleanup --wait`, Ready when its node is clean), then all objects go, last the
//! finalizer. A node that cannot answer holds the removal up for at most [`CLEANUP_LIMIT`].

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Annotation on the DaemonSet and its pods that makes them clean-ups: since when, RFC 3339.
pub const CLEANUP_ANNOTATION: &str = "multusservice.cni.cncf.io/cleanup-since";
/// How long nodes have to become clean before they are skipped and named.
pub const CLEANUP_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// The step that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The DaemonSet is, or becomes, a clean-up.
    CleanNodes {
        /// When that began.
        since: Timestamp,
        /// Nodes that are not clean yet, sorted.
        waiting: Vec<String>,
    },
    /// Everything goes that is still there.
    Delete {
        /// Nodes that did not become clean in time, sorted.
        skipped: Vec<String>,
    },
}

/// Decides from the DaemonSet, if there still is one, and its pods.
pub fn next_step(proxy: Option<&DaemonSet>, pods: &[Pod], now: Timestamp) -> Removal {
    let Some(proxy) = proxy else {
        return Removal::Delete { skipped: Vec::new() };
    };
    let since = proxy.annotations().get(CLEANUP_ANNOTATION);
    let since_time = since.and_then(|since| since.parse::<Timestamp>().ok());
    let waiting = unclean_nodes(pods, since.map(String::as_str));
    match since_time {
        Some(_) if is_clean(proxy) => Removal::Delete { skipped: Vec::new() },
        Some(since) if now.duration_since(since) >= CLEANUP_LIMIT => Removal::Delete {
            skipped: named(waiting),
        },
        since => Removal::CleanNodes {
            since: since.unwrap_or(now),
            waiting,
        },
    }
}

/// Whether every pod of the DaemonSet is a Ready clean-up. Nodes in maintenance are among the desired ones.
fn is_clean(proxy: &DaemonSet) -> bool {
    let Some(status) = &proxy.status else { return false };
    status.observed_generation == proxy.metadata.generation
        && status.updated_number_scheduled.unwrap_or_default() >= status.desired_number_scheduled
        && status.number_ready >= status.desired_number_scheduled
}

/// Nodes with a pod of the proxy, but without a Ready clean-up.
fn unclean_nodes(pods: &[Pod], since: Option<&str>) -> Vec<String> {
    let is_clean = |pod: &&Pod| {
        let made_cleanup = pod.annotations().get(CLEANUP_ANNOTATION);
        made_cleanup.is_some() && made_cleanup.map(String::as_str) == since && is_ready(pod)
    };
    let clean: BTreeSet<_> = pods.iter().filter(is_clean).filter_map(node).collect();
    let all: BTreeSet<_> = pods.iter().filter_map(node).collect();
    all.difference(&clean).map(|&node| node.to_owned()).collect()
}

/// A node whose clean-up could not even be created has no pod to be named by.
fn named(mut nodes: Vec<String>) -> Vec<String> {
    if nodes.is_empty() {
        nodes.push("nodes without a pod of the proxy".to_owned());
    }
    nodes
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests;
