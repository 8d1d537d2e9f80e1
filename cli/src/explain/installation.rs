//! Links about the installation and the leader of the controller.
//!
//! Pure.

use super::case::Case;
use super::endpoints::difference;
use crate::chain::{Link, Topic};
use crate::facts::Cluster;
use crate::situations::{Cause, Values};
use api::MultusServiceConfig;
use api::config::ManagementState;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Returns the link about the configuration.
pub(super) fn installation(case: &Case<'_>) -> Vec<Link> {
    vec![of_cluster(&case.facts.cluster, &case.values)]
}

/// Returns the link about the configuration, for any command.
pub fn of_cluster(cluster: &Cluster, values: &Values) -> Link {
    let config = match &cluster.config {
        Err(read_error) => return Link::unknown(Topic::Installation, read_error.to_string()),
        Ok(None) => return Cause::NotInstalled.broken(values),
        Ok(Some(config)) => config,
    };
    match config.spec.management_state {
        ManagementState::Removed => return Cause::Removed.broken(values),
        ManagementState::Unmanaged => return Cause::Unmanaged.broken(values).softened(),
        ManagementState::Managed => {}
    }
    let bad = [("Available", "False"), ("Degraded", "True")];
    let bad = bad
        .iter()
        .find_map(|(type_, status)| condition(config, type_).filter(|condition| condition.status == *status));
    if let Some(Condition {
        type_,
        status,
        reason,
        message,
        ..
    }) = bad
    {
        let values = values
            .clone()
            .and("condition", format!("{type_}={status} ({reason}): {message}"));
        return Cause::Degraded.broken(&values).softened();
    }
    let version = config
        .status
        .as_ref()
        .and_then(|status| status.observed_version.clone());
    let version = version.unwrap_or_else(|| "not reported".to_owned());
    Link::good(
        Topic::Installation,
        format!("MultusServiceConfig cluster is Managed, version {version}"),
    )
}

/// Returns a condition of the configuration.
pub fn condition<'a>(config: &'a MultusServiceConfig, type_: &str) -> Option<&'a Condition> {
    let mut conditions = config.status.as_ref()?.conditions.iter();
    conditions.find(|condition| condition.type_ == type_)
}

/// Returns the link about the Lease. Without a leader existing slices stay: a Service is only broken if its slices have to change.
pub(super) fn controller(case: &Case<'_>) -> Vec<Link> {
    let link = leader(&case.facts.cluster, &case.values);
    let is_behind = difference(case).is_some();
    vec![if link.cause.is_some() && !is_behind {
        link.softened()
    } else {
        link
    }]
}

/// Returns the link about the Lease, for any command.
pub fn leader(cluster: &Cluster, values: &Values) -> Link {
    match &cluster.lease {
        Err(read_error) => Link::unknown(Topic::Controller, read_error.to_string()),
        Ok(lease) => match holder(lease.as_ref(), cluster.now) {
            Ok(text) => Link::good(Topic::Controller, text),
            Err(why) => Cause::NoLeader.broken(&values.clone().and("lease", why)),
        },
    }
}

/// Returns the leader, or the reason why there is none.
fn holder(lease: Option<&Lease>, now: Timestamp) -> Result<String, String> {
    let spec = lease
        .and_then(|lease| lease.spec.as_ref())
        .ok_or("there is no Lease")?;
    let holder = spec
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty());
    let holder = holder.ok_or("its Lease has no holder")?;
    let renewed = spec.renew_time.as_ref().ok_or("its Lease was never renewed")?.0;
    let seconds = now.duration_since(renewed).as_secs();
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(15));
    if seconds > lasts {
        return Err(format!(
            "{holder} renewed its Lease {seconds} s ago, and it lasts {lasts} s"
        ));
    }
    Ok(format!("{holder} leads"))
}
