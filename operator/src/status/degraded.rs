//! Current faults and their start times.
//!
//! Pure. Only faults that last for [`DEGRADED_GRACE_PERIOD`] degrade. Start times are in the status, so that a restarted operator
//! keeps them.

use super::{Outcome, list_names};
use crate::cleanup::CLEANUP_ANNOTATION;
use crate::cleanup::node_labels::is_pod_of;
use crate::pod_health::{self, NodeFailure, PodFailure};
use crate::validate::Intent;
use crate::workloads;
use api::config::{Failure, UnhealthyNode};
use api::names::{CLEANUP, CONTROLLER, NETWORK_DEFINITION, PROXY};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

/// Time for which a fault must last before it degrades.
pub(super) const DEGRADED_GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(2);

/// A fault: reason and message of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Collects all current faults.
pub(super) fn faults(outcome: &Outcome<'_>, is_progressing: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(message) = outcome.failure {
        faults.push(Fault {
            reason: "ApplyFailed",
            message: message.to_owned(),
        });
    }
    faults.extend(cleanup_faults(outcome));
    if matches!(outcome.intent, Ok(Intent::Remove(_))) {
        return faults;
    }
    if outcome.observed.lacks_multus {
        faults.push(Fault {
            reason: "MissingMultus",
            message: format!(
                "CustomResourceDefinition {NETWORK_DEFINITION} not found: without Multus no pod has a secondary network; install Multus"
            ),
        });
    }
    faults.extend(controller_faults(outcome));
    faults.extend(proxy_faults(outcome));
    if !is_progressing {
        faults.extend(availability_fault(outcome));
    }
    faults
}

fn controller_faults(outcome: &Outcome<'_>) -> Vec<Fault> {
    let mut faults = grouped(&node_failures(outcome, CONTROLLER), |failure| match failure {
        PodFailure::CrashLooping => "ControllerCrashLooping",
        PodFailure::ImagePullFailed => "ControllerImagePullFailed",
        PodFailure::PodsForbidden => "ControllerPodsForbidden",
        PodFailure::NotServing => "ControllerNotServing",
    });
    if let Some(message) = outcome
        .live
        .controller()
        .and_then(workloads::controller_rejection)
    {
        faults.push(Fault {
            reason: "ControllerPodsForbidden",
            message,
        });
    }
    faults
}

fn proxy_faults(outcome: &Outcome<'_>) -> Vec<Fault> {
    let mut faults = grouped(&proxy_failures(outcome), |failure| match failure {
        PodFailure::CrashLooping => "ProxyCrashLooping",
        PodFailure::ImagePullFailed => "ProxyImagePullFailed",
        PodFailure::PodsForbidden => "ProxyPodsForbidden",
        PodFailure::NotServing => "ProxyNotServing",
    });
    faults.dedup();
    faults
}

/// A cleanup pod is not ready until its node is clean, so only a pod that cannot run is a fault.
fn cleanup_faults(outcome: &Outcome<'_>) -> Vec<Fault> {
    let observed = outcome.observed;
    let pods = observed
        .pods
        .iter()
        .filter(|pod| is_pod_of(pod, CLEANUP) || is_converted(pod));
    let mut found = pod_health::node_failures(pods, &observed.nodes, observed.now);
    found.retain(|node_failure| node_failure.failure != PodFailure::NotServing);
    grouped(&found, |failure| match failure {
        PodFailure::CrashLooping => "CleanupCrashLooping",
        PodFailure::ImagePullFailed => "CleanupImagePullFailed",
        PodFailure::PodsForbidden | PodFailure::NotServing => "CleanupNotRunning",
    })
}

/// True for a proxy pod that became a cleanup pod.
fn is_converted(pod: &Pod) -> bool {
    is_pod_of(pod, PROXY) && pod.annotations().contains_key(CLEANUP_ANNOTATION)
}

fn availability_fault(outcome: &Outcome<'_>) -> Option<Fault> {
    let (reason, message) = match (outcome.live.controller(), outcome.live.proxy()) {
        (Some(controller), _) if !workloads::controller_is_available(controller) => {
            ("ControllerUnavailable", "No controller replica is available")
        }
        (_, Some(proxy)) if !workloads::proxy_is_available(proxy) => {
            ("ProxyUnavailable", "No proxy pod is available")
        }
        _ => return None,
    };
    Some(Fault {
        reason,
        message: message.to_owned(),
    })
}

fn node_failures(outcome: &Outcome<'_>, operand: &str) -> Vec<NodeFailure> {
    let observed = outcome.observed;
    let pods = observed.pods.iter().filter(|pod| is_pod_of(pod, operand));
    pod_health::node_failures(pods, &observed.nodes, observed.now)
}

/// Failures of proxy pods, and of pods that could not be created.
pub(super) fn proxy_failures(outcome: &Outcome<'_>) -> Vec<NodeFailure> {
    let mut node_failures = node_failures(outcome, PROXY);
    if let Some(rejection) = &outcome.observed.proxy_rejection {
        node_failures.push(NodeFailure {
            failure: PodFailure::PodsForbidden,
            node: UnhealthyNode {
                name: String::new(),
                reason: "FailedCreate".to_owned(),
                message: rejection.chars().take(500).collect(),
            },
        });
    }
    node_failures
}

/// Groups failures by kind into faults, with nodes and causes.
fn grouped(node_failures: &[NodeFailure], reason: impl Fn(PodFailure) -> &'static str) -> Vec<Fault> {
    let kinds = [
        PodFailure::CrashLooping,
        PodFailure::ImagePullFailed,
        PodFailure::PodsForbidden,
        PodFailure::NotServing,
    ];
    let fault = |failure: PodFailure| {
        let nodes: Vec<_> = node_failures
            .iter()
            .filter(|node_failure| node_failure.failure == failure)
            .map(|node_failure| format_node(&node_failure.node))
            .collect();
        (!nodes.is_empty()).then(|| Fault {
            reason: reason(failure),
            message: list_names(&nodes),
        })
    };
    kinds.into_iter().filter_map(fault).collect()
}

fn format_node(
    UnhealthyNode {
        name,
        reason,
        message,
    }: &UnhealthyNode,
) -> String {
    match (name.as_str(), message.as_str()) {
        ("", message) => message.to_owned(),
        (name, "") => format!("node {name} ({reason})"),
        (name, message) => format!("node {name} ({reason}: {message})"),
    }
}

/// Returns the faults with the time since when each has been present without interruption.
pub(super) fn failures_since(before: &[Failure], faults: &[Fault], now: &Time) -> Vec<Failure> {
    let since = |fault: &Fault| Failure {
        reason: fault.reason.to_owned(),
        since: before
            .iter()
            .find(|failure| failure.reason == fault.reason)
            .map_or_else(|| now.clone(), |failure| failure.since.clone()),
    };
    let mut failures: Vec<Failure> = Vec::new();
    for failure in faults.iter().map(since) {
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }
    failures
}
