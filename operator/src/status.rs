//! Reports in the configuration's status.
//!
//! Writes: the status, in one patch, and only when it changes; then Events about the transitions.

mod conditions;
mod counts;
mod degraded;
mod rollout;

use crate::apply::merge_patch;
use crate::cleanup::node_labels::is_pod_of;
use crate::events::EventRecorder;
use crate::gather::Observed;
use crate::operands::{Operands, VERSION_LABEL};
use crate::pod_health::{self, NodeFailure};
use crate::validate::{Intent, InvalidConfig};
use api::config::ProxyStatus;
use api::names::{CONFIG_NAME, OPERATOR_FIELD_MANAGER, PROXY};
use api::{MultusServiceConfig, MultusServiceConfigStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tracing::info;

/// Limit of names in a message or a list.
const MAX_NAMES: usize = 10;

/// Input and result of one reconcile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    /// The cluster before.
    pub observed: &'a Observed,
    /// The intent of the configuration.
    pub intent: &'a Result<Intent, InvalidConfig>,
    /// The operands afterwards.
    pub live: &'a Operands,
    /// The error of a failed write.
    pub failure: Option<&'a str>,
}

/// Builds the status of this outcome. Equal outcomes give equal statuses.
pub(crate) fn build_status(outcome: &Outcome<'_>) -> MultusServiceConfigStatus {
    let Observed { config, version, .. } = outcome.observed;
    let before = config.status.clone().unwrap_or_default();
    let evaluation = conditions::evaluate(outcome);
    let is_removal = matches!(outcome.intent, Ok(Intent::Remove(_)));
    let target = match outcome.intent {
        Ok(Intent::Install(_)) => Some(version.clone()),
        Ok(Intent::Remove(_)) => None,
        Ok(Intent::Observe) | Err(_) => before.target_version,
    };
    let is_reached = matches!(outcome.intent, Ok(Intent::Install(_)))
        && outcome.failure.is_none()
        && is_at_version(outcome.live, version)
        && is_false(&evaluation.conditions, "Progressing");
    MultusServiceConfigStatus {
        observed_generation: if outcome.failure.is_none() {
            config.metadata.generation
        } else {
            before.observed_generation
        },
        operator_version: Some(version.clone()),
        target_version: target,
        observed_version: match (is_reached, is_removal) {
            (true, _) => Some(version.clone()),
            (false, true) => None,
            (false, false) => before.observed_version,
        },
        controller: outcome.live.controller().map(counts::controller),
        proxy: outcome
            .live
            .proxy()
            .map(|proxy| with_pods(counts::proxy(proxy), outcome)),
        rollout: evaluation.rollout,
        failures: evaluation.failures,
        conditions: evaluation.conditions,
        related_objects: outcome.live.related_objects(),
    }
}

/// True when an operator of this version applied controller and proxy.
fn is_at_version(live: &Operands, version: &str) -> bool {
    fn is_pod_of(object: &impl Resource, version: &str) -> bool {
        object.labels().get(VERSION_LABEL).map(String::as_str) == Some(version)
    }
    live.controller()
        .is_some_and(|controller| is_pod_of(controller, version))
        && live.proxy().is_some_and(|proxy| is_pod_of(proxy, version))
}

fn is_false(conditions: &[Condition], type_: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == "False")
}

/// Adds the fields that come from the proxy pods.
fn with_pods(status: ProxyStatus, outcome: &Outcome<'_>) -> ProxyStatus {
    let failures = first_of_each_node(degraded::proxy_failures(outcome));
    let causes = counts::causes(&failures);
    let mut unhealthy: Vec<_> = failures.into_iter().map(|failure| failure.node).collect();
    let count = i32::try_from(unhealthy.len()).unwrap_or(i32::MAX);
    unhealthy.truncate(MAX_NAMES);
    let pods = outcome.observed.pods.iter().filter(|pod| is_pod_of(pod, PROXY));
    ProxyStatus {
        backends: pod_health::backends(pods),
        unhealthy_nodes: unhealthy,
        unhealthy_node_count: count,
        causes,
        ..status
    }
}

/// Keeps one failure of each known node, so that counts of failures are counts of nodes. `failures`: sorted by node.
fn first_of_each_node(mut failures: Vec<NodeFailure>) -> Vec<NodeFailure> {
    failures.dedup_by(|one, other| !one.node.name.is_empty() && one.node.name == other.node.name);
    failures
}

/// Writes the status unless it is up to date; returns it.
pub(crate) async fn report(
    client: &Client,
    recorder: &EventRecorder,
    outcome: &Outcome<'_>,
) -> kube::Result<MultusServiceConfigStatus> {
    let (config, status) = (&outcome.observed.config, build_status(outcome));
    let before = managed_part(config.status.as_ref());
    if before == status {
        return Ok(status);
    }
    // The response may hold values that this version cannot decode.
    let configs: Api<PartialObjectMeta<MultusServiceConfig>> = Api::all(client.clone());
    let patch = json!({
        // The UID: a configuration that was recreated meanwhile has not been evaluated.
        "metadata": { "uid": config.metadata.uid },
        "status": merge_patch::patch(&value(config.status.as_ref()), &value(Some(&with_other_conditions(config, &status)))),
    });
    let params = PatchParams {
        field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match configs
        .patch_status(CONFIG_NAME, &params, &Patch::Merge(patch))
        .await
    {
        // The object was deleted when its finalizer was removed.
        Err(kube::Error::Api(error))
            if error.is_not_found() && config.metadata.deletion_timestamp.is_some() =>
        {
            return Ok(status);
        }
        written => written?,
    };
    log_changes(&before.conditions, &status.conditions);
    recorder.conditions_changed(config, &before.conditions, &status.conditions);
    if let (Some(before), Some(after)) = (&before.observed_version, &status.observed_version)
        && before != after
    {
        recorder.version_changed(config, before, after);
    }
    Ok(status)
}

/// Keeps the conditions of other managers. The status is not written by server-side apply: a field that another client once wrote
/// would stay with its owner, and could make the status invalid.
fn with_other_conditions(
    config: &MultusServiceConfig,
    status: &MultusServiceConfigStatus,
) -> MultusServiceConfigStatus {
    let conditions = config.status.iter().flat_map(|status| &status.conditions);
    let foreign = conditions.filter(|condition| !conditions::TYPES.contains(&condition.type_.as_str()));
    let mut status = status.clone();
    status.conditions.extend(foreign.cloned());
    status
}

fn value(status: Option<&MultusServiceConfigStatus>) -> serde_json::Value {
    serde_json::to_value(status).expect("a status is JSON")
}

fn log_changes(before: &[Condition], after: &[Condition]) {
    for Condition {
        type_,
        status,
        reason,
        message,
        ..
    } in after.iter().filter(|&condition| !before.contains(condition))
    {
        info!(condition = %type_, %status, %reason, detail = %message, "Condition changed");
    }
}

/// The status without conditions of other managers, in the order in which the operator writes it.
fn managed_part(status: Option<&MultusServiceConfigStatus>) -> MultusServiceConfigStatus {
    let mut status = status.cloned().unwrap_or_default();
    status
        .conditions
        .retain(|condition| conditions::TYPES.contains(&condition.type_.as_str()));
    status.conditions.sort_by_key(|condition| {
        conditions::TYPES
            .iter()
            .position(|&type_| type_ == condition.type_)
    });
    status
}

/// Lists the first names and the number of the others.
fn list_names(all: &[String]) -> String {
    let named = all
        .iter()
        .take(MAX_NAMES)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().saturating_sub(MAX_NAMES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
