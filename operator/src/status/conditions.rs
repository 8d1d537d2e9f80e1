//! The conditions Available, Progressing, Degraded, Upgradeable and OperandImageOverridden.
//!
//! Pure. Conditions change only on evidence: a restarted operator, a rebooted node or a single failed write changes none.
//! `lastTransitionTime` changes only with `status`; every condition carries `observedGeneration`, so that `kubectl wait` after an
//! edit waits for the edited generation.

use super::degraded::{self, DEGRADED_GRACE_PERIOD, Fault};
use super::{Outcome, list_names, rollout};
use crate::cleanup::{self, Removal};
use crate::pod_health;
use crate::service_ranges::ServiceRanges;
use crate::validate::Intent;
use crate::workloads;
use api::config::{Failure, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of the operator's conditions, in the order of the status.
pub(super) const TYPES: [&str; 5] = [
    "Available",
    "Progressing",
    "Degraded",
    "Upgradeable",
    "OperandImageOverridden",
];

const AS_EXPECTED: &str = "AsExpected";
const ALL_AVAILABLE: &str = "All components are available";
const POLICIES_NOT_SERVED: &str = "All components are available. The API server does not serve ValidatingAdmissionPolicies, so RBAC alone limits the permissions of controller and proxy: enable admissionregistration.k8s.io/v1";
const RANGES_UNKNOWN: &str = "All components are available. The cluster does not publish its Service CIDRs, so endpoint addresses are not checked against them: set spec.serviceCIDRs to the value of kube-apiserver's --service-cluster-ip-range";
const INSTALLING: &str = "Installing";
const WAITING_FOR_DELETION: &str = "WaitingForPodDeletion";
const NODES_NOT_CLEANED: &str = "NodesNotCleaned";
/// Limit of a message, below the limit of the API.
const MESSAGE_LIMIT: usize = 8_000;

/// The conditions, and the state that the next evaluation needs.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) conditions: Vec<Condition>,
    pub(super) failures: Vec<Failure>,
    pub(super) rollout: Option<RolloutStatus>,
}

/// Status, reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ConditionState {
    status: bool,
    reason: String,
    message: String,
}

impl ConditionState {
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

    fn as_expected(message: &str) -> Self {
        Self::no(AS_EXPECTED, message)
    }
}

pub(super) fn evaluate(outcome: &Outcome<'_>) -> Evaluation {
    let now = Time(outcome.observed.now);
    let status = outcome.observed.config.status.as_ref();
    let progressing = progressing(outcome);
    let is_rollout = progressing.status && progressing.reason != WAITING_FOR_DELETION;
    let is_removal = progressing.reason == cleanup::PROGRESS;
    let rollout = is_rollout.then(|| {
        let before = status.and_then(|status| status.rollout.as_ref());
        // A removal has one clock from start to end.
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
    let faults = degraded::faults(outcome, progressing.status);
    let before = status.map_or(&[][..], |status| &status.failures);
    let failures = degraded::failures_since(before, &faults, &now);
    let degraded = degraded(outcome, hung, &faults, &failures, &now);
    let upgradeable = upgradeable(outcome, &progressing, hung.is_some());
    let evaluated = [
        available(outcome),
        progressing,
        degraded,
        upgradeable,
        overridden(outcome),
    ];
    let conditions = TYPES
        .iter()
        .zip(evaluated)
        .map(|(type_, state)| condition(outcome, type_, state))
        .collect();
    Evaluation {
        conditions,
        failures,
        rollout,
    }
}

fn condition(outcome: &Outcome<'_>, type_: &str, state: ConditionState) -> Condition {
    let ConditionState {
        status,
        reason,
        message,
    } = state;
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

fn available(outcome: &Outcome<'_>) -> ConditionState {
    if let Ok(Intent::Remove(_)) = outcome.intent {
        return if outcome.live.daemon_sets.is_empty() {
            ConditionState::no("Removed", "All operands have been removed")
        } else {
            ConditionState::no("Removing", "Removing operands: cleaning up rules on nodes")
        };
    }
    match (outcome.live.controller(), outcome.live.proxy()) {
        (Some(controller), Some(_)) if !workloads::controller_is_available(controller) => {
            ConditionState::no("ControllerUnavailable", "No controller replica is available")
        }
        (Some(_), Some(proxy)) if !workloads::proxy_is_available(proxy) => {
            ConditionState::no("ProxyUnavailable", "No proxy pod is available")
        }
        (Some(_), Some(proxy)) if workloads::desired_proxies(proxy) == Some(0) => ConditionState::yes(
            AS_EXPECTED,
            "No nodes match the scheduling fields of spec.proxy; no proxies are needed",
        ),
        (Some(_), Some(_)) => {
            unverified(outcome).unwrap_or_else(|| ConditionState::yes(AS_EXPECTED, ALL_AVAILABLE))
        }
        _ => ConditionState::no("NotYetDeployed", "Controller and proxy are not deployed yet"),
    }
}

/// Checks that this cluster does not support. They are optional, so nothing is degraded.
fn unverified(outcome: &Outcome<'_>) -> Option<ConditionState> {
    let Ok(Intent::Install(config)) = outcome.intent else {
        return None;
    };
    let lacks_policies = !outcome.observed.kinds.admission_policies;
    let lacks_ranges = config.service_ranges == ServiceRanges::Unknown;
    let unverified = [
        (lacks_policies, "AdmissionPoliciesNotServed", POLICIES_NOT_SERVED),
        (lacks_ranges, "ServiceCIDRsUnknown", RANGES_UNKNOWN),
    ];
    let (reasons, messages): (Vec<_>, Vec<_>) = unverified
        .into_iter()
        .filter_map(|(is_so, reason, message)| is_so.then_some((reason, message)))
        .unzip();
    (!reasons.is_empty()).then(|| ConditionState::yes(reasons.join("::"), messages.join("\n")))
}

fn progressing(outcome: &Outcome<'_>) -> ConditionState {
    match outcome.intent {
        Ok(Intent::Remove(removal)) => removal_progress(outcome, removal),
        Ok(Intent::Install(_)) if is_unapplied(outcome) => {
            ConditionState::yes("Applying", "Applying a change of the configuration")
        }
        intent => rollout_progress(outcome, matches!(intent, Ok(Intent::Install(_)))),
    }
}

/// True when a change could not be written; a repair that could not be written is no progress.
fn is_unapplied(outcome: &Outcome<'_>) -> bool {
    let config = &outcome.observed.config;
    let observed = config
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    outcome.failure.is_some() && observed != config.metadata.generation
}

fn removal_progress(outcome: &Outcome<'_>, removal: &Removal) -> ConditionState {
    match removal {
        Removal::CleanNodes { waiting, .. } if waiting.is_empty() => ConditionState::yes(
            cleanup::PROGRESS,
            "Waiting for rule cleanup: the proxy pods are being replaced",
        ),
        Removal::CleanNodes { waiting, .. } => ConditionState::yes(
            cleanup::PROGRESS,
            format!("Waiting for rule cleanup on nodes: {}", list_names(waiting)),
        ),
        Removal::Delete { .. } if outcome.live.related_objects().is_empty() => {
            ConditionState::no("Removed", "All operands have been removed")
        }
        Removal::Delete { .. } => ConditionState::yes(cleanup::PROGRESS, "Deleting operands"),
    }
}

fn rollout_progress(outcome: &Outcome<'_>, is_installation: bool) -> ConditionState {
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
        return ConditionState::yes(
            reason("DeployingController"),
            detail(workloads::controller_progress(controller)),
        );
    }
    let Some(proxy) = outcome
        .live
        .proxy()
        .filter(|_| outcome.live.controller().is_some())
    else {
        return if is_installation {
            ConditionState::yes(reason("Applying"), detail("Applying operands".to_owned()))
        } else {
            ConditionState::as_expected("No rollout is in progress")
        };
    };
    if let Some(message) = workloads::proxy_progress(proxy) {
        return if workloads::proxy_waits_for_deletion(proxy) {
            ConditionState::yes(
                WAITING_FOR_DELETION,
                format!(
                    "{message}; the update strategy is OnDelete: delete the remaining proxy pods to update them"
                ),
            )
        } else {
            ConditionState::yes(reason("RollingOutProxy"), detail(message))
        };
    }
    match workloads::installation_progress(proxy) {
        Some(message) if installing => ConditionState::yes(INSTALLING, message),
        _ => ConditionState::as_expected("No rollout is in progress"),
    }
}

/// True until the first rollout is complete: an installation also waits for every proxy to be available. Afterwards an unavailable
/// node is no progress.
fn is_installing(outcome: &Outcome<'_>) -> bool {
    previous(outcome, "Progressing").is_some_and(|previous| previous.reason == INSTALLING)
        || previous(outcome, "Available").is_none_or(|previous| {
            ["NotYetDeployed", "Removing", "Removed"].contains(&previous.reason.as_str())
        })
}

/// Reason and message of a version change of the operands.
fn version_change(outcome: &Outcome<'_>) -> Option<(&'static str, String)> {
    let status = outcome.observed.config.status.as_ref()?;
    let (from, to) = (status.observed_version.as_deref()?, &outcome.observed.version);
    let reason = match rank(to).cmp(&rank(from)) {
        _ if from == to => return None,
        std::cmp::Ordering::Less => "Downgrading",
        _ => "Upgrading",
    };
    Some((reason, format!("Changing from version {from} to {to}")))
}

/// Order of versions for the message: numbers, then releases after their candidates.
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
    faults: &[Fault],
    failures: &[Failure],
    now: &Time,
) -> ConditionState {
    let mut causes = Vec::new();
    if let Err(invalid) = outcome.intent {
        causes.push((invalid.reason(), invalid.to_string()));
    }
    if let Some(hung) = hung {
        let since = hung.last_progress_time.0;
        let outdated = pod_health::outdated_nodes(outcome.observed.pods.iter(), outcome.live);
        let nodes = if outdated.is_empty() {
            String::new()
        } else {
            format!("; waiting for nodes {}", list_names(&outdated))
        };
        causes.push((
            "RolloutHung",
            format!(
                "The rollout has made no progress since {since}: {}{nodes}",
                hung.progress
            ),
        ));
    }
    let lasts = |fault: &&Fault| {
        failures.iter().any(|failure| {
            failure.reason == fault.reason && now.0.duration_since(failure.since.0) >= DEGRADED_GRACE_PERIOD
        })
    };
    causes.extend(
        faults
            .iter()
            .filter(lasts)
            .map(|fault| (fault.reason, fault.message.clone())),
    );
    if let Ok(Intent::Remove(Removal::Delete { skipped })) = outcome.intent {
        let before = previous(outcome, "Degraded").filter(|previous| previous.reason == NODES_NOT_CLEANED);
        if !skipped.is_empty() {
            causes.push((NODES_NOT_CLEANED, not_cleaned(skipped)));
        } else if let Some(before) = before {
            // The DaemonSet is deleted: the earlier message stays true.
            causes.push((NODES_NOT_CLEANED, before.message.clone()));
        }
    }
    merge_reasons(&causes)
}

/// One cause as it is; several in OpenShift's format.
fn merge_reasons(causes: &[(&'static str, String)]) -> ConditionState {
    match causes {
        [] => ConditionState::as_expected("No component is degraded"),
        [(reason, message)] => ConditionState::yes(*reason, message),
        several => {
            let reasons: Vec<_> = several.iter().map(|(reason, _)| *reason).collect();
            let lines: Vec<_> = several
                .iter()
                .map(|(reason, message)| format!("{reason}: {message}"))
                .collect();
            ConditionState::yes(reasons.join("::"), lines.join("\n"))
        }
    }
}

/// A rollout that hangs does not block an upgrade that may repair it.
fn upgradeable(outcome: &Outcome<'_>, progressing: &ConditionState, is_hung: bool) -> ConditionState {
    if matches!(outcome.intent, Ok(Intent::Observe)) {
        return ConditionState::no(
            "Unmanaged",
            "Upgrade blocked: spec.managementState is Unmanaged, so the operands would keep their version; set it to Managed",
        );
    }
    // The operator is done; a manual replacement of proxy pods may take any time.
    if progressing.status && !is_hung && progressing.reason != WAITING_FOR_DELETION {
        return ConditionState::no(
            "RolloutInProgress",
            format!(
                "Upgrade blocked until Progressing is False: {}",
                progressing.message
            ),
        );
    }
    let overridden = overridden(outcome);
    if overridden.status {
        return ConditionState::yes("OperandImageOverridden", overridden.message);
    }
    ConditionState::yes(AS_EXPECTED, "The operator can be upgraded")
}

fn overridden(outcome: &Outcome<'_>) -> ConditionState {
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
        return ConditionState::as_expected("The operand images are those of the release");
    }
    ConditionState::yes(
        "ImageSet",
        format!(
            "{}; an upgrade of the operator does not change this image: remove the field to follow the operator's version",
            fields.join(" and ")
        ),
    )
}

/// The message about nodes whose cleanup timed out.
fn not_cleaned(skipped: &[String]) -> String {
    format!(
        "Cleanup timed out on nodes: {}. Pods there may keep multus-service routes and rules until they are restarted",
        list_names(skipped)
    )
}

#[cfg(test)]
mod tests;
