//! The conditions Available, Progressing and Degraded.
//!
//! Pure. They change only on evidence: an operator that restarts, a node that reboots, a write that fails once change nothing.
//! `lastTransitionTime` moves only with `status`; every condition carries `observedGeneration`, so that `kubectl wait` after an edit
//! waits for what the edit leads to.

use super::{Outcome, workloads};
use crate::removal::Removal;
use crate::validate::Intent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::SignedDuration;

/// The condition types we write, in the order in which we write them.
pub(super) const TYPES: [&str; 3] = ["Available", "Progressing", "Degraded"];
/// How long writes must have been failing before it is said: the API server is away for a moment in every upgrade.
const INERTIA: SignedDuration = SignedDuration::from_mins(2);
/// Names in a message; more say less.
const MAX_NAMES: usize = 10;

const AS_EXPECTED: &str = "AsExpected";
const ALL_IS_WELL: &str = "All is well";
const INSTALLING: &str = "Installing";
const APPLY_FAILED: &str = "ApplyFailed";
const NODES_NOT_CLEANED: &str = "NodesNotCleaned";

/// One condition's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Answer {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: true,
            reason,
            message: message.into(),
        }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: false,
            reason,
            message: message.into(),
        }
    }
}

/// All three.
pub(super) fn conditions(outcome: &Outcome<'_>) -> Vec<Condition> {
    let answers = [available(outcome), progressing(outcome), degraded(outcome)];
    TYPES
        .iter()
        .zip(answers)
        .map(|(type_, answer)| condition(outcome, type_, answer))
        .collect()
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
        reason: reason.to_owned(),
        message,
        observed_generation: outcome.config.metadata.generation,
        last_transition_time: unchanged.map_or_else(
            || Time(outcome.now),
            |previous| previous.last_transition_time.clone(),
        ),
    }
}

fn previous<'a>(outcome: &Outcome<'a>, type_: &str) -> Option<&'a Condition> {
    outcome
        .config
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn available(outcome: &Outcome<'_>) -> Answer {
    if let Ok(Intent::Remove(_)) = outcome.intent {
        return if outcome.live.proxy().is_some() {
            Answer::no(
                "Removing",
                "Nodes are being cleaned, the operands are being removed",
            )
        } else {
            Answer::no("Removed", "The operands are removed")
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
        (Some(_), Some(_)) => Answer::yes(AS_EXPECTED, ALL_IS_WELL),
        _ => Answer::no("NotYetDeployed", "Controller and proxy are not deployed"),
    }
}

fn progressing(outcome: &Outcome<'_>) -> Answer {
    match outcome.intent {
        Ok(Intent::Remove(removal)) => removing(outcome, removal),
        Ok(Intent::Install(_)) if is_unapplied(outcome) => {
            Answer::yes("Applying", "A change of the configuration is being applied")
        }
        _ => rolling_out(outcome),
    }
}

/// A change that could not be written is still to come; a mere repair that could not be written is no progress.
fn is_unapplied(outcome: &Outcome<'_>) -> bool {
    let observed = outcome
        .config
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    outcome.failure.is_some() && observed != outcome.config.metadata.generation
}

fn removing(outcome: &Outcome<'_>, removal: &Removal) -> Answer {
    match removal {
        Removal::CleanNodes { waiting, .. } => Answer::yes(
            "Removing",
            format!("Waiting for nodes to be clean: {}", names(waiting)),
        ),
        Removal::Delete { .. } if outcome.live.related_objects().is_empty() => {
            Answer::no("Removed", "The operands are removed")
        }
        Removal::Delete { .. } => Answer::yes("Removing", "Deleting the operands"),
    }
}

fn rolling_out(outcome: &Outcome<'_>) -> Answer {
    let (Some(controller), Some(proxy)) = (outcome.live.controller(), outcome.live.proxy()) else {
        return Answer::no(AS_EXPECTED, "Nothing is being rolled out");
    };
    let installing = is_installing(outcome);
    let reason = |otherwise| if installing { INSTALLING } else { otherwise };
    if workloads::controller_is_rolling_out(controller) {
        return Answer::yes(reason("DeployingController"), "Deploying the controller");
    }
    if let Some(message) = workloads::proxy_roll_out(proxy) {
        return Answer::yes(reason("RollingOutProxy"), message);
    }
    match workloads::proxy_installation(proxy) {
        Some(message) if installing => Answer::yes(INSTALLING, message),
        _ => Answer::no(AS_EXPECTED, ALL_IS_WELL),
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

fn degraded(outcome: &Outcome<'_>) -> Answer {
    if let Err(invalid) = outcome.intent {
        return Answer::yes("InvalidConfig", invalid.to_string());
    }
    if let Some((message, since)) = outcome.failure
        && (outcome.now.duration_since(since) >= INERTIA || was_degraded(outcome, APPLY_FAILED))
    {
        return Answer::yes(APPLY_FAILED, message);
    }
    if let Ok(Intent::Remove(Removal::Delete { skipped })) = outcome.intent {
        if !skipped.is_empty() {
            return Answer::yes(NODES_NOT_CLEANED, not_cleaned(skipped));
        }
        // The DaemonSet is gone and with it the evidence: what was found then stays true.
        if let Some(previous) =
            previous(outcome, "Degraded").filter(|_| was_degraded(outcome, NODES_NOT_CLEANED))
        {
            return Answer::yes(NODES_NOT_CLEANED, previous.message.clone());
        }
    }
    Answer::no(AS_EXPECTED, ALL_IS_WELL)
}

fn was_degraded(outcome: &Outcome<'_>, reason: &str) -> bool {
    previous(outcome, "Degraded")
        .is_some_and(|previous| previous.status == "True" && previous.reason == reason)
}

/// What is said of nodes that did not become clean in time.
pub(crate) fn not_cleaned(skipped: &[String]) -> String {
    format!(
        "Pods on these nodes may keep routes and rules of ours until they are restarted, because the nodes did not become clean in time: {}",
        names(skipped)
    )
}

fn names(nodes: &[String]) -> String {
    if nodes.is_empty() {
        return "their pods are being replaced".to_owned();
    }
    let named = nodes
        .iter()
        .take(MAX_NAMES)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match nodes.len().saturating_sub(MAX_NAMES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
