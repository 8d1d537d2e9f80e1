//! Progress of a rollout.
//!
//! Pure. The last progress and its time are in the status: a restarted operator neither forgets a rollout that hangs nor restarts
//! its clock.

use api::config::RolloutStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

/// Time without progress after which a rollout hangs (cluster-network-operator's number).
pub(super) const HUNG_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Updates the progress of the rollout.
pub(super) fn track(before: Option<&RolloutStatus>, progress: &str, now: &Time) -> RolloutStatus {
    match before {
        Some(before) if before.progress == progress => before.clone(),
        _ => RolloutStatus {
            progress: progress.to_owned(),
            last_progress_time: now.clone(),
        },
    }
}

/// True when the rollout makes no progress.
pub(super) fn is_hung(rollout: &RolloutStatus, now: &Time) -> bool {
    now.0.duration_since(rollout.last_progress_time.0) >= HUNG_AFTER
}
