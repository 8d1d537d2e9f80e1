//! Says in the configuration's status how it stands.
//!
//! Writes: the status, in one patch, and only when it says something new.

mod conditions;
mod workloads;

pub(crate) use conditions::not_cleaned;

use crate::operands::Operands;
use crate::validate::{Intent, InvalidConfig};
use api::names::{CONFIG_NAME, OPERATOR_FIELD_MANAGER};
use api::{MultusServiceConfig, MultusServiceConfigStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::info;

/// What one reconcile found and did.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The configuration, with the status it had.
    pub config: &'a MultusServiceConfig,
    /// What was to be done.
    pub intent: &'a Result<Intent, InvalidConfig>,
    /// Our objects afterwards.
    pub live: &'a Operands,
    /// The write that failed, and since when writes have been failing.
    pub failure: Option<(&'a str, Timestamp)>,
    /// The clock of this reconcile.
    pub now: Timestamp,
}

/// The status that tells this outcome. Equal outcomes give equal statuses.
pub fn describe(outcome: &Outcome<'_>) -> MultusServiceConfigStatus {
    let before = outcome
        .config
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    MultusServiceConfigStatus {
        observed_generation: if outcome.failure.is_none() {
            outcome.config.metadata.generation
        } else {
            before
        },
        conditions: conditions::conditions(outcome),
        related_objects: outcome.live.related_objects(),
    }
}

/// Writes the status unless it is what the configuration has already.
pub async fn patch(client: &Client, outcome: &Outcome<'_>) -> kube::Result<()> {
    let (config, status) = (outcome.config, describe(outcome));
    let before = ours(config.status.as_ref());
    if before == status {
        return Ok(());
    }
    let configs: Api<MultusServiceConfig> = Api::all(client.clone());
    let patch = json!({
        "apiVersion": "multusservice.cni.cncf.io/v1alpha1",
        "kind": "MultusServiceConfig",
        // The UID: a configuration that was deleted and made anew has not been looked at.
        "metadata": { "name": CONFIG_NAME, "uid": config.metadata.uid },
        "status": status,
    });
    let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
    match configs
        .patch_status(CONFIG_NAME, &params, &Patch::Apply(patch))
        .await
    {
        // It went when its finalizer did.
        Err(kube::Error::Api(status))
            if status.is_not_found() && config.metadata.deletion_timestamp.is_some() =>
        {
            return Ok(());
        }
        written => written?,
    };
    log_changes(&before.conditions, &status.conditions);
    Ok(())
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
        info!(condition = %type_, %status, %reason, detail = %message, "Reported");
    }
}

/// The status without conditions of other writers, in the order in which we write it.
fn ours(status: Option<&MultusServiceConfigStatus>) -> MultusServiceConfigStatus {
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
