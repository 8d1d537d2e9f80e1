//! Whether a rollout moves.
//!
//! Pure. What was seen last and since when is in the status: a restart of the operator neither forgets a rollout that hangs nor takes
//! one for new.

use api::config::RolloutStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

/// A rollout in which nothing has moved for this long hangs (cluster-network-operator's number).
pub(super) const HUNG_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// The rollout, given what is seen of it now.
pub(super) fn track(before: Option<&RolloutStatus>, progress: &str, now: &Time) -> RolloutStatus {
    match before {
        Some(before) if before.progress == progress => before.clone(),
        _ => RolloutStatus {
            progress: progress.to_owned(),
            last_progress_time: now.clone(),
        },
    }
}

/// Whether it stays where it is.
pub(super) fn is_hung(rollout: &RolloutStatus, now: &Time) -> bool {
    now.0.duration_since(rollout.last_progress_time.0) >= HUNG_AFTER
}
