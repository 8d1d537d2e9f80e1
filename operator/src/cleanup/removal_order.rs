//! Order of a removal: rules on nodes, then operands, then the finalizer.
//!
//! Pure, and a function of the cluster alone, so that a restarted operator resumes a removal. First every proxy becomes a cleanup
//! pod (`proxy cleanup --wait`, Ready when its node is clean) and labelled nodes without a proxy get one; then all objects are
//! deleted, last the finalizer is removed. An unreachable node delays the removal for at most [`CLEANUP_LIMIT`].

use crate::cleanup::node_labels::{LABEL, SKIPPED, is_clean, is_pod_of};
use crate::gather::Observed;
use api::names::PROXY;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Annotation on the DaemonSet and its pods that turns them into cleanup pods; its value is the start time, RFC 3339.
pub const CLEANUP_ANNOTATION: &str = "multusservice.cni.cncf.io/cleanup-since";
/// Time limit for cleanup on nodes; nodes that exceed it are skipped and reported.
pub const CLEANUP_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// The next step of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Run the DaemonSets as cleanup.
    CleanNodes {
        /// Start of the cleanup.
        since: Timestamp,
        /// Nodes that are not clean yet, sorted.
        waiting: Vec<String>,
    },
    /// Delete all remaining operands.
    Delete {
        /// Nodes whose cleanup timed out, sorted.
        skipped: Vec<String>,
    },
}

/// Value of [`api::config::RolloutStatus::progress`] during a removal. Its start time also covers nodes whose DaemonSet cannot be
/// written.
pub const PROGRESS: &str = "Removing";

/// Decides from the DaemonSets, their pods and the node labels.
pub fn next_step(observed: &Observed, limit: SignedDuration) -> Removal {
    let proxy = observed.live.proxy();
    let waiting = unclean_nodes(observed);
    if proxy.is_none_or(is_converted) && waiting.is_empty() {
        return Removal::Delete { skipped: Vec::new() };
    }
    let now = observed.now;
    let since = annotation_since(observed).map(|since| since.min(now));
    let began = [since, status_since(observed)]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now);
    if now.duration_since(began) >= limit {
        return Removal::Delete {
            skipped: or_placeholder(waiting),
        };
    }
    Removal::CleanNodes {
        // Running cleanup pods are not restarted for another date.
        since: since.unwrap_or(began),
        waiting,
    }
}

/// Start time in the annotation of the DaemonSets.
fn annotation_since(observed: &Observed) -> Option<Timestamp> {
    let daemon_sets = [observed.live.proxy(), observed.live.cleanup()];
    daemon_sets
        .into_iter()
        .flatten()
        .find_map(|daemon_set| daemon_set.annotations().get(CLEANUP_ANNOTATION)?.parse().ok())
}

/// Start time of the removal in `status`: a DaemonSet that is rejected, terminating or without an image carries no annotation.
fn status_since(observed: &Observed) -> Option<Timestamp> {
    let rollout = observed.config.status.as_ref()?.rollout.as_ref()?;
    (rollout.progress == PROGRESS).then_some(rollout.last_progress_time.0)
}

/// True when every pod of the DaemonSet is a Ready cleanup pod. Nodes in maintenance count as desired.
fn is_converted(proxy: &DaemonSet) -> bool {
    let Some(status) = &proxy.status else { return false };
    proxy.annotations().contains_key(CLEANUP_ANNOTATION)
        && status.observed_generation == proxy.metadata.generation
        && status.updated_number_scheduled.unwrap_or_default() >= status.desired_number_scheduled
        && status.number_ready >= status.desired_number_scheduled
}

/// Nodes that run a proxy, or are labelled as having run one, and have no Ready cleanup pod.
fn unclean_nodes(observed: &Observed) -> Vec<String> {
    let Observed {
        live, pods, nodes, ..
    } = observed;
    let since = live
        .proxy()
        .and_then(|proxy| proxy.annotations().get(CLEANUP_ANNOTATION));
    let node = |pod: &k8s_openapi::api::core::v1::Pod| pod.spec.as_ref()?.node_name.clone();
    let clean: BTreeSet<_> = pods
        .iter()
        .filter(|pod| is_clean(pod, since.map(String::as_str)))
        .filter_map(node)
        .collect();
    let labelled = nodes
        .iter()
        .filter(|node| node.labels().get(LABEL).is_some_and(|label| label != SKIPPED))
        .map(ResourceExt::name_any);
    // Pods that outlive their DaemonSet are terminating; the labels of their nodes have been evaluated.
    let is_running = |pod: &&k8s_openapi::api::core::v1::Pod| live.proxy().is_some() && is_pod_of(pod, PROXY);
    let running = pods.iter().filter(is_running).filter_map(node);
    let unclean: BTreeSet<_> = labelled
        .chain(running)
        .filter(|node| !clean.contains(node))
        .collect();
    unclean.into_iter().collect()
}

/// Placeholder for nodes whose cleanup pod could not be created: no pod names them.
fn or_placeholder(mut nodes: Vec<String>) -> Vec<String> {
    if nodes.is_empty() {
        nodes.push("those without a proxy pod".to_owned());
    }
    nodes
}

#[cfg(test)]
mod tests;
