//! The Accepted condition of a Service: what its owner sees long after the Events are gone.
//!
//! Pure. Its text depends on what is wrong, never on how many endpoints there are, so it is written only when a verdict changes.

use crate::accept::Acceptance;
use crate::notice::Notice;
use api::names::ACCEPTED_CONDITION;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition for a verdict. Its transition time is set when it is written.
pub fn accepted(acceptance: &Acceptance, notices: &[Notice], generation: Option<i64>) -> Condition {
    let told = notices
        .iter()
        .map(|notice| notice.message.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    let (status, reason, message) = match acceptance {
        Acceptance::Refused => ("False", first_refusal(notices), told),
        Acceptance::Unselected => (
            "True",
            "NoSelector",
            "the Service selects no pods; whoever made it writes its EndpointSlices".to_owned(),
        ),
        Acceptance::Served(binding) if notices.is_empty() => (
            "True",
            "Served",
            format!("endpoints are taken from network {}", binding.network),
        ),
        Acceptance::Served(_) => ("True", "ServedWithWarnings", told),
    };
    Condition {
        type_: ACCEPTED_CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: cut(&message),
        observed_generation: generation,
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
    }
}

fn first_refusal(notices: &[Notice]) -> &'static str {
    notices
        .iter()
        .map(|notice| notice.reason)
        .find(|reason| reason.is_refusal())
        .map_or("Refused", |reason| reason.as_str())
}

/// The API server takes 32 KiB; nobody reads more than this.
fn cut(message: &str) -> String {
    message.chars().take(4096).collect()
}

/// The condition the Service has now.
pub fn current(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == ACCEPTED_CONDITION)
}

/// Whether the Service already says this.
pub fn stands(service: &Service, wanted: &Condition) -> bool {
    current(service).is_some_and(|current| {
        (
            &current.status,
            &current.reason,
            &current.message,
            current.observed_generation,
        ) == (
            &wanted.status,
            &wanted.reason,
            &wanted.message,
            wanted.observed_generation,
        )
    })
}
