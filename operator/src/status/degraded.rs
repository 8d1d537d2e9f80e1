//! What is wrong at the moment, and since when.
//!
//! Pure. A blip is no failure of the system: only what lasts is said ([`INERTIA`]). The times are in the status, so that a restart of
//! the operator starts no clock anew.

use super::{Outcome, names};
use crate::cleanup::CLEANUP_ANNOTATION;
use crate::cleanup::node_labels::is_of;
use crate::pod_health::{self, Finding, Trouble};
use crate::validate::Intent;
use crate::workloads;
use api::config::{Failure, UnhealthyNode};
use api::names::{CLEANUP, CONTROLLER, NETWORK_DEFINITION, PROXY};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

/// How long something must have been wrong before it is said.
pub(super) const INERTIA: SignedDuration = SignedDuration::from_mins(2);

/// Something wrong: the reason of the condition, and what to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Everything wrong right now.
pub(super) fn complaints(outcome: &Outcome<'_>, is_progressing: bool) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if let Some(message) = outcome.failure {
        complaints.push(Complaint {
            reason: "ApplyFailed",
            message: message.to_owned(),
        });
    }
    complaints.extend(of_clean_ups(outcome));
    if matches!(outcome.intent, Ok(Intent::Remove(_))) {
        return complaints;
    }
    if outcome.observed.lacks_multus {
        complaints.push(Complaint {
            reason: "MissingMultus",
            message: format!(
                "There is no CustomResourceDefinition {NETWORK_DEFINITION}: without Multus no pod has a second network; install Multus"
            ),
        });
    }
    complaints.extend(of_controller(outcome));
    complaints.extend(of_proxies(outcome));
    if !is_progressing {
        complaints.extend(of_availability(outcome));
    }
    complaints
}

fn of_controller(outcome: &Outcome<'_>) -> Vec<Complaint> {
    let mut complaints = grouped(&findings(outcome, CONTROLLER), |trouble| match trouble {
        Trouble::CrashLooping => "ControllerCrashLooping",
        Trouble::ImagePullFailed => "ControllerImagePullFailed",
        Trouble::PodsForbidden => "ControllerPodsForbidden",
        Trouble::NotServing => "ControllerNotServing",
    });
    if let Some(message) = outcome
        .live
        .controller()
        .and_then(workloads::controller_rejection)
    {
        complaints.push(Complaint {
            reason: "ControllerPodsForbidden",
            message,
        });
    }
    complaints
}

fn of_proxies(outcome: &Outcome<'_>) -> Vec<Complaint> {
    let mut complaints = grouped(&proxy_findings(outcome), |trouble| match trouble {
        Trouble::CrashLooping => "ProxyCrashLooping",
        Trouble::ImagePullFailed => "ProxyImagePullFailed",
        Trouble::PodsForbidden => "ProxyPodsForbidden",
        Trouble::NotServing => "ProxyNotServing",
    });
    complaints.dedup();
    complaints
}

/// A clean-up is not ready until its node is clean, which may take its time; one that cannot even run is in trouble.
fn of_clean_ups(outcome: &Outcome<'_>) -> Vec<Complaint> {
    let observed = outcome.observed;
    let pods = observed
        .pods
        .iter()
        .filter(|pod| is_of(pod, CLEANUP) || is_converted(pod));
    let mut found = pod_health::findings(pods, &observed.nodes, observed.now);
    found.retain(|finding| finding.trouble != Trouble::NotServing);
    grouped(&found, |trouble| match trouble {
        Trouble::CrashLooping => "CleanUpCrashLooping",
        Trouble::ImagePullFailed => "CleanUpImagePullFailed",
        Trouble::PodsForbidden | Trouble::NotServing => "CleanUpNotRunning",
    })
}

/// Whether the pod of a proxy is a clean-up.
fn is_converted(pod: &Pod) -> bool {
    is_of(pod, PROXY) && pod.annotations().contains_key(CLEANUP_ANNOTATION)
}

fn of_availability(outcome: &Outcome<'_>) -> Option<Complaint> {
    let (reason, message) = match (outcome.live.controller(), outcome.live.proxy()) {
        (Some(controller), _) if !workloads::controller_is_available(controller) => (
            "ControllerUnavailable",
            "No replica of the controller is available",
        ),
        (_, Some(proxy)) if !workloads::proxy_is_available(proxy) => {
            ("ProxyUnavailable", "No proxy is available")
        }
        _ => return None,
    };
    Some(Complaint {
        reason,
        message: message.to_owned(),
    })
}

fn findings(outcome: &Outcome<'_>, operand: &str) -> Vec<Finding> {
    let observed = outcome.observed;
    let pods = observed.pods.iter().filter(|pod| is_of(pod, operand));
    pod_health::findings(pods, &observed.nodes, observed.now)
}

/// The proxies' pods, and those that could not be created.
pub(super) fn proxy_findings(outcome: &Outcome<'_>) -> Vec<Finding> {
    let mut findings = findings(outcome, PROXY);
    if let Some(rejection) = &outcome.observed.proxy_rejection {
        findings.push(Finding {
            trouble: Trouble::PodsForbidden,
            node: UnhealthyNode {
                name: String::new(),
                reason: "FailedCreate".to_owned(),
                message: rejection.chars().take(500).collect(),
            },
        });
    }
    findings
}

/// One complaint for each kind of trouble, with nodes and causes.
fn grouped(findings: &[Finding], reason: impl Fn(Trouble) -> &'static str) -> Vec<Complaint> {
    let kinds = [
        Trouble::CrashLooping,
        Trouble::ImagePullFailed,
        Trouble::PodsForbidden,
        Trouble::NotServing,
    ];
    let complaint = |trouble: Trouble| {
        let nodes: Vec<_> = findings
            .iter()
            .filter(|finding| finding.trouble == trouble)
            .map(|finding| spell(&finding.node))
            .collect();
        (!nodes.is_empty()).then(|| Complaint {
            reason: reason(trouble),
            message: names(&nodes),
        })
    };
    kinds.into_iter().filter_map(complaint).collect()
}

fn spell(
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

/// The complaints with the time since when each has been true without a break.
pub(super) fn since(before: &[Failure], complaints: &[Complaint], now: &Time) -> Vec<Failure> {
    let since = |complaint: &Complaint| Failure {
        reason: complaint.reason.to_owned(),
        since: before
            .iter()
            .find(|failure| failure.reason == complaint.reason)
            .map_or_else(|| now.clone(), |failure| failure.since.clone()),
    };
    let mut failures: Vec<Failure> = Vec::new();
    for failure in complaints.iter().map(since) {
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }
    failures
}
