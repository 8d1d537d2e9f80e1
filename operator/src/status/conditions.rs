//! The conditions Available, Progressing, Degraded, Upgradeable and OperandImageOverridden.
//!
//! Pure. They change only on evidence: an operator that restarts, a node that reboots, a write that fails once change nothing.
//! `lastTransitionTime` moves only with `status`; every condition carries `observedGeneration`, so that `kubectl wait` after an edit
//! waits for what the edit leads to.

use super::degraded::{self, Complaint, INERTIA};
use super::{Outcome, names, rollout};
use crate::cleanup::{self, Removal};
use crate::pod_health;
use crate::service_ranges::ServiceRanges;
use crate::validate::Intent;
use crate::workloads;
use api::config::{Failure, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition types we write, in the order in which we write them.
pub(super) const TYPES: [&str; 5] = [
    "Available",
    "Progressing",
    "Degraded",
    "Upgradeable",
    "OperandImageOverridden",
];

const AS_EXPECTED: &str = "AsExpected";
const ALL_IS_WELL: &str = "All is well";
const POLICIES_NOT_SERVED: &str = "Controller and proxy are available; the API server does not serve ValidatingAdmissionPolicies, so their rights are as wide as RBAC grants them: enable admissionregistration.k8s.io/v1";
const RANGES_UNKNOWN: &str = "Controller and proxy are available; the cluster does not name its ranges of ClusterIPs, so endpoints are not checked against them: set spec.serviceCIDRs to the value of kube-apiserver's --service-cluster-ip-range";
const INSTALLING: &str = "Installing";
const WAITING_FOR_DELETION: &str = "WaitingForPodDeletion";
const NODES_NOT_CLEANED: &str = "NodesNotCleaned";
/// As long as a condition may be, less than the API takes.
const MESSAGE_LIMIT: usize = 8_000;

/// What is said, and what must be remembered to say the right thing next time.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) conditions: Vec<Condition>,
    pub(super) failures: Vec<Failure>,
    pub(super) rollout: Option<RolloutStatus>,
}

/// One condition's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: bool,
    reason: String,
    message: String,
}

impl Answer {
    fn yes(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: true,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn no(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: false,
            ..Self::yes(reason, message)
        }
    }

    fn as_expected() -> Self {
        Self::no(AS_EXPECTED, ALL_IS_WELL)
    }
}

/// All of them.
pub(super) fn judge(outcome: &Outcome<'_>) -> Verdict {
    let now = Time(outcome.observed.now);
    let status = outcome.observed.config.status.as_ref();
    let progressing = progressing(outcome);
    let is_rollout = progressing.status && progressing.reason != WAITING_FOR_DELETION;
    let is_removal = progressing.reason == cleanup::PROGRESS;
    let rollout = is_rollout.then(|| {
        let before = status.and_then(|status| status.rollout.as_ref());
        // A removal has one clock from its begin to its end.
        let progress = if is_removal {
            cleanup::PROGRESS
        } else {
            &progressing.message
        };
        rollout::track(before, progress, &now)
    });
    let hung = rollout
        .as_ref()
        .filter(|rollout| !is_removal && rollout::is_hung(rollout, &now));
    let complaints = degraded::complaints(outcome, progressing.status);
    let before = status.map_or(&[][..], |status| &status.failures);
    let failures = degraded::since(before, &complaints, &now);
    let degraded = degraded(outcome, hung, &complaints, &failures, &now);
    let upgradeable = upgradeable(outcome, &progressing, hung.is_some());
    let answers = [
        available(outcome),
        progressing,
        degraded,
        upgradeable,
        overridden(outcome),
    ];
    let conditions = TYPES
        .iter()
        .zip(answers)
        .map(|(type_, answer)| condition(outcome, type_, answer))
        .collect();
    Verdict {
        conditions,
        failures,
        rollout,
    }
}

fn condition(outcome: &Outcome<'_>, type_: &str, answer: Answer) -> Condition {
    let Answer {
        status,
        reason,
        message,
    } = answer;
    let status = if status { "True" } else { "False" };
    let unchanged = previous(outcome, type_).filter(|previous| previous.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason,
        message: message.chars().take(MESSAGE_LIMIT).collect(),
        observed_generation: outcome.observed.config.metadata.generation,
        last_transition_time: unchanged.map_or_else(
            || Time(outcome.observed.now),
            |previous| previous.last_transition_time.clone(),
        ),
    }
}

fn previous<'a>(outcome: &Outcome<'a>, type_: &str) -> Option<&'a Condition> {
    let status = outcome.observed.config.status.as_ref()?;
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn available(outcome: &Outcome<'_>) -> Answer {
    if let Ok(Intent::Remove(_)) = outcome.intent {
        return if outcome.live.daemon_sets.is_empty() {
            Answer::no("Removed", "The operands are removed")
        } else {
            Answer::no(
                "Removing",
                "Nodes are being cleaned, the operands are being removed",
            )
        };
    }
    match (outcome.live.controller(), outcome.live.proxy()) {
        (Some(controller), Some(_)) if !workloads::controller_is_available(controller) => Answer::no(
            "ControllerUnavailable",
            "No replica of the controller is available",
        ),
        (Some(_), Some(proxy)) if !workloads::proxy_is_available(proxy) => {
            Answer::no("ProxyUnavailable", "No proxy is available")
        }
        (Some(_), Some(proxy)) if workloads::wanted_proxies(proxy) == Some(0) => {
            Answer::yes(AS_EXPECTED, "No node is to run a proxy")
        }
        (Some(_), Some(_)) => unchecked(outcome).unwrap_or_else(|| Answer::yes(AS_EXPECTED, ALL_IS_WELL)),
        _ => Answer::no("NotYetDeployed", "Controller and proxy are not deployed"),
    }
}

/// What this cluster does not let us check. Everything works without, so that nothing is degraded.
fn unchecked(outcome: &Outcome<'_>) -> Option<Answer> {
    let Ok(Intent::Install(config)) = outcome.intent else {
        return None;
    };
    let lacks_policies = !outcome.observed.kinds.admission_policies;
    let lacks_ranges = config.service_ranges == ServiceRanges::Unknown;
    let unchecked = [
        (lacks_policies, "AdmissionPoliciesNotServed", POLICIES_NOT_SERVED),
        (lacks_ranges, "ServiceCIDRsUnknown", RANGES_UNKNOWN),
    ];
    let (reasons, messages): (Vec<_>, Vec<_>) = unchecked
        .into_iter()
        .filter_map(|(is_so, reason, message)| is_so.then_some((reason, message)))
        .unzip();
    (!reasons.is_empty()).then(|| Answer::yes(reasons.join("::"), messages.join("\n")))
}

fn progressing(outcome: &Outcome<'_>) -> Answer {
    match outcome.intent {
        Ok(Intent::Remove(removal)) => removing(outcome, removal),
        Ok(Intent::Install(_)) if is_unapplied(outcome) => {
            Answer::yes("Applying", "A change of the configuration is being applied")
        }
        intent => rolling_out(outcome, matches!(intent, Ok(Intent::Install(_)))),
    }
}

/// A change that could not be written is still to come; a mere repair that could not be written is no progress.
fn is_unapplied(outcome: &Outcome<'_>) -> bool {
    let config = &outcome.observed.config;
    let observed = config
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    outcome.failure.is_some() && observed != config.metadata.generation
}

fn removing(outcome: &Outcome<'_>, removal: &Removal) -> Answer {
    match removal {
        Removal::CleanNodes { waiting, .. } if waiting.is_empty() => Answer::yes(
            cleanup::PROGRESS,
            "Waiting for nodes to be clean: their pods are being replaced",
        ),
        Removal::CleanNodes { waiting, .. } => Answer::yes(
            cleanup::PROGRESS,
            format!("Waiting for nodes to be clean: {}", names(waiting)),
        ),
        Removal::Delete { .. } if outcome.live.related_objects().is_empty() => {
            Answer::no("Removed", "The operands are removed")
        }
        Removal::Delete { .. } => Answer::yes(cleanup::PROGRESS, "Deleting the operands"),
    }
}

fn rolling_out(outcome: &Outcome<'_>, is_wanted: bool) -> Answer {
    let installing = is_installing(outcome);
    let change = version_change(outcome).filter(|_| !installing);
    let reason = |otherwise: &'static str| match &change {
        _ if installing => INSTALLING,
        Some((reason, _)) => reason,
        None => otherwise,
    };
    let detail = |message: String| match &change {
        Some((_, versions)) => format!("{versions}: {message}"),
        None => message,
    };
    if let Some(controller) = outcome.live.controller()
        && workloads::controller_is_rolling_out(controller)
    {
        return Answer::yes(
            reason("DeployingController"),
            detail(workloads::controller_roll_out(controller)),
        );
    }
    let Some(proxy) = outcome
        .live
        .proxy()
        .filter(|_| outcome.live.controller().is_some())
    else {
        return if is_wanted {
            Answer::yes(reason("Applying"), detail("Applying the operands".to_owned()))
        } else {
            Answer::no(AS_EXPECTED, "Nothing is being rolled out")
        };
    };
    if let Some(message) = workloads::proxy_roll_out(proxy) {
        return if workloads::proxy_waits_for_deletion(proxy) {
            Answer::yes(
                WAITING_FOR_DELETION,
                format!("{message}; the others follow when their pods are deleted"),
            )
        } else {
            Answer::yes(reason("RollingOutProxy"), detail(message))
        };
    }
    match workloads::proxy_installation(proxy) {
        Some(message) if installing => Answer::yes(INSTALLING, message),
        _ => Answer::as_expected(),
    }
}

/// Until it is complete once, an installation also waits for every proxy to be available; afterwards a node that is away is none
/// of its business.
fn is_installing(outcome: &Outcome<'_>) -> bool {
    previous(outcome, "Progressing").is_some_and(|previous| previous.reason == INSTALLING)
        || previous(outcome, "Available").is_none_or(|previous| {
            ["NotYetDeployed", "Removing", "Removed"].contains(&previous.reason.as_str())
        })
}

/// Reason and versions while the operands go to another version than the one that all of them run.
fn version_change(outcome: &Outcome<'_>) -> Option<(&'static str, String)> {
    let status = outcome.observed.config.status.as_ref()?;
    let (from, to) = (status.observed_version.as_deref()?, &outcome.observed.version);
    let reason = match rank(to).cmp(&rank(from)) {
        _ if from == to => return None,
        std::cmp::Ordering::Less => "Downgrading",
        _ => "Upgrading",
    };
    Some((reason, format!("From {from} to {to}")))
}

/// The order of versions, as far as words need it: numbers, then whether it is a release.
fn rank(version: &str) -> (Vec<u64>, bool) {
    let (numbers, suffix) = version.split_once('-').unwrap_or((version, ""));
    let numbers = numbers
        .split('.')
        .map(|number| number.parse().unwrap_or_default());
    (numbers.collect(), suffix.is_empty())
}

fn degraded(
    outcome: &Outcome<'_>,
    hung: Option<&RolloutStatus>,
    complaints: &[Complaint],
    failures: &[Failure],
    now: &Time,
) -> Answer {
    let mut said = Vec::new();
    if let Err(invalid) = outcome.intent {
        said.push((invalid.reason(), invalid.to_string()));
    }
    if let Some(hung) = hung {
        let since = hung.last_progress_time.0;
        let behind = pod_health::behind(outcome.observed.pods.iter(), outcome.live);
        let whom = if behind.is_empty() {
            String::new()
        } else {
            format!("; waiting for nodes {}", names(&behind))
        };
        said.push((
            "RolloutHung",
            format!("Nothing has moved since {since}: {}{whom}", hung.progress),
        ));
    }
    let lasts = |complaint: &&Complaint| {
        failures.iter().any(|failure| {
            failure.reason == complaint.reason && now.0.duration_since(failure.since.0) >= INERTIA
        })
    };
    said.extend(
        complaints
            .iter()
            .filter(lasts)
            .map(|complaint| (complaint.reason, complaint.message.clone())),
    );
    if let Ok(Intent::Remove(Removal::Delete { skipped })) = outcome.intent {
        let before = previous(outcome, "Degraded").filter(|previous| previous.reason == NODES_NOT_CLEANED);
        if !skipped.is_empty() {
            said.push((NODES_NOT_CLEANED, not_cleaned(skipped)));
        } else if let Some(before) = before {
            // The DaemonSet is gone and with it the evidence: what was found then stays true.
            said.push((NODES_NOT_CLEANED, before.message.clone()));
        }
    }
    joined(&said)
}

/// One cause as it is; several as OpenShift joins them.
fn joined(said: &[(&'static str, String)]) -> Answer {
    match said {
        [] => Answer::as_expected(),
        [(reason, message)] => Answer::yes(*reason, message),
        several => {
            let reasons: Vec<_> = several.iter().map(|(reason, _)| *reason).collect();
            let lines: Vec<_> = several
                .iter()
                .map(|(reason, message)| format!("{reason}: {message}"))
                .collect();
            Answer::yes(reasons.join("::"), lines.join("\n"))
        }
    }
}

/// A roll-out that hangs does not keep its cure away.
fn upgradeable(outcome: &Outcome<'_>, progressing: &Answer, is_hung: bool) -> Answer {
    if matches!(outcome.intent, Ok(Intent::Observe)) {
        return Answer::no(
            "Unmanaged",
            "The operands are not managed, so an upgrade of the operator would not reach them; set spec.managementState to Managed",
        );
    }
    // Who replaces proxies by hand may take any time; the operator has done its part.
    if progressing.status && !is_hung && progressing.reason != WAITING_FOR_DELETION {
        return Answer::no(
            "RolloutInProgress",
            format!("Wait until Progressing is False: {}", progressing.message),
        );
    }
    let overridden = overridden(outcome);
    if overridden.status {
        return Answer::yes("OperandImageOverridden", overridden.message);
    }
    Answer::yes(AS_EXPECTED, ALL_IS_WELL)
}

fn overridden(outcome: &Outcome<'_>) -> Answer {
    let spec = &outcome.observed.config.spec;
    let controller = spec
        .controller
        .as_ref()
        .and_then(|controller| controller.image.as_ref());
    let proxy = spec.proxy.as_ref().and_then(|proxy| proxy.image.as_ref());
    let fields: Vec<_> = [(controller, "spec.controller.image"), (proxy, "spec.proxy.image")]
        .into_iter()
        .filter_map(|(image, field)| image.map(|image| format!("{field} is {image}")))
        .collect();
    if fields.is_empty() {
        return Answer::as_expected();
    }
    Answer::yes(
        "ImageSet",
        format!(
            "{}, which an upgrade of the operator does not change; remove the field to follow the operator's version",
            fields.join(" and ")
        ),
    )
}

/// What is said of nodes that did not become clean in time.
fn not_cleaned(skipped: &[String]) -> String {
    format!(
        "Pods on these nodes may keep routes and rules of ours until they are restarted, because the nodes did not become clean in time: {}",
        names(skipped)
    )
}

#[cfg(test)]
mod tests;
