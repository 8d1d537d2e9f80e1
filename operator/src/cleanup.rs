//! How far the removal of the operands has come.
//!
//! Pure, and a function of the cluster alone, so that an operator that was restarted in the middle goes on where it was.
//! First every proxy becomes a cleanup (`proxy cleanup --wait`, Ready when its node is clean) and nodes without a proxy get one,
//! then all objects go, last the finalizer. A node that cannot answer holds the removal up for at most [`CLEANUP_LIMIT`].

pub mod daemon_set;
pub mod node_labels;
pub mod uninstall;

use crate::cleanup::node_labels::{LABEL, SKIPPED, is_clean, is_pod_of};
use crate::gather::Observed;
use api::names::PROXY;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Annotation on the DaemonSet and its pods that makes them cleanups: since when, RFC 3339.
pub const CLEANUP_ANNOTATION: &str = "multusservice.cni.cncf.io/cleanup-since";
/// How long nodes have to become clean before they are skipped and named.
pub const CLEANUP_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// The step that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The DaemonSets are, or become, cleanups.
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

/// What [`api::config::RolloutStatus::progress`] says during a removal: since when is the clock of nodes whose DaemonSet cannot be written.
pub const PROGRESS: &str = "Removing";

/// Decides from the DaemonSets, their pods and the labels of nodes.
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
        // Cleanups that run are not started anew for another date.
        since: since.unwrap_or(began),
        waiting,
    }
}

/// Since when the DaemonSets are cleanups.
fn annotation_since(observed: &Observed) -> Option<Timestamp> {
    let daemon_sets = [observed.live.proxy(), observed.live.cleanup()];
    daemon_sets
        .into_iter()
        .flatten()
        .find_map(|daemon_set| daemon_set.annotations().get(CLEANUP_ANNOTATION)?.parse().ok())
}

/// Since when the status says that the operands are being removed: a DaemonSet that is rejected, terminating or without an image
/// carries no annotation.
fn status_since(observed: &Observed) -> Option<Timestamp> {
    let rollout = observed.config.status.as_ref()?.rollout.as_ref()?;
    (rollout.progress == PROGRESS).then_some(rollout.last_progress_time.0)
}

/// Whether every pod of the DaemonSet is a Ready cleanup. Nodes in maintenance are among the desired ones.
fn is_converted(proxy: &DaemonSet) -> bool {
    let Some(status) = &proxy.status else { return false };
    proxy.annotations().contains_key(CLEANUP_ANNOTATION)
        && status.observed_generation == proxy.metadata.generation
        && status.updated_number_scheduled.unwrap_or_default() >= status.desired_number_scheduled
        && status.number_ready >= status.desired_number_scheduled
}

/// Nodes that run a proxy or are labelled as having run one, without a Ready cleanup.
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
    // Pods that outlive their DaemonSet are on their way out; the labels of their nodes have been judged.
    let is_running = |pod: &&k8s_openapi::api::core::v1::Pod| live.proxy().is_some() && is_pod_of(pod, PROXY);
    let running = pods.iter().filter(is_running).filter_map(node);
    let unclean: BTreeSet<_> = labelled
        .chain(running)
        .filter(|node| !clean.contains(node))
        .collect();
    unclean.into_iter().collect()
}

/// A node whose cleanup could not even be created has no pod to be named by.
fn or_placeholder(mut nodes: Vec<String>) -> Vec<String> {
    if nodes.is_empty() {
        nodes.push("those without a proxy pod".to_owned());
    }
    nodes
}

#[cfg(test)]
mod tests;
