//! The Accepted condition of a Service, which users still see when the Events have expired.
//!
//! Pure. Its message depends on the problems, never on the number of endpoints, so it is written only when the problems change.

use crate::service_status::problem::Problem;
use crate::validate::Acceptance;
use api::NetworkRef;
use api::names::{ACCEPTED_CONDITION, SERVICE_NAME_LABEL};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Source of a Service's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the pods that it selects.
    Pods,
    /// From the slices that its author wrote.
    Slices,
    /// From the slices that its author has not written yet.
    NoSlices,
    /// It has no ClusterIP: DNS answers its author's slices as they are.
    Dns,
}

/// Returns the condition for an acceptance and its problems. Its transition time is set when it is written.
pub fn accepted(
    acceptance: &Acceptance,
    source: Source,
    problems: &[Problem],
    generation: Option<i64>,
) -> Condition {
    let warnings = problems.iter().map(|problem| problem.message.clone());
    let is_rejected = problems.iter().any(|problem| problem.reason.is_rejection());
    let (status, reason, message) = match acceptance.network().filter(|_| !is_rejected) {
        None => ("False", first_rejection(problems), warnings.collect()),
        Some(network) => {
            let reason = match source {
                Source::NoSlices | Source::Dns => "NoSelector",
                _ if problems.is_empty() => "Accepted",
                _ => "AcceptedWithWarnings",
            };
            (
                "True",
                reason,
                warnings
                    .chain([served_message(source, network)])
                    .collect::<Vec<_>>(),
            )
        }
    };
    let message = message.join("; ");
    Condition {
        type_: ACCEPTED_CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: truncate(&message),
        observed_generation: generation,
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
    }
}

/// Adds the command that checks more than the controller can see: the slices, a client, its rules.
#[must_use]
pub fn with_next_command(mut condition: Condition, service: &Service) -> Condition {
    let metadata = &service.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let client = if condition.status == "True" {
        " --from pod/CLIENT"
    } else {
        ""
    };
    let command = format!("kubectl multus-service explain service/{name} -n {namespace}{client}");
    condition.message = format!("{}; to check it: {command}", condition.message);
    condition
}

/// Message for a served Service: its endpoints' source and the pods that reach it. A client on another network gets no warning.
fn served_message(source: Source, network: &NetworkRef) -> String {
    let reach = format!(
        "only pods attached to {network} reach the ClusterIP, not those attached to a definition of the same name in another namespace"
    );
    match source {
        Source::Pods => format!("endpoints are taken from network {network}; {reach}"),
        Source::Slices => {
            format!("endpoints are copied from the EndpointSlices that the Service's author wrote; {reach}")
        }
        Source::NoSlices => format!(
            "the Service selects no pods and its author has written no EndpointSlice with label {SERVICE_NAME_LABEL} yet; {reach}"
        ),
        Source::Dns => "the Service selects no pods and has no ClusterIP; DNS answers with the EndpointSlices that its author wrote, which are not checked"
            .to_owned(),
    }
}

fn first_rejection(problems: &[Problem]) -> &'static str {
    problems
        .iter()
        .map(|problem| problem.reason)
        .find(|reason| reason.is_rejection())
        .map_or("Rejected", |reason| reason.as_str())
}

/// The API server accepts 32 KiB; this is a readable length.
fn truncate(message: &str) -> String {
    message.chars().take(4096).collect()
}

/// Returns the present Accepted condition of the Service.
pub fn current(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == ACCEPTED_CONDITION)
}

/// Returns true if the Service already has this condition.
pub fn is_current(service: &Service, wanted: &Condition) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_status::problem::Reason;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::served(
        Some("net"),
        "it is so; to check it: kubectl multus-service explain service/web -n shop --from pod/CLIENT"
    )]
    #[case::rejected(
        None,
        "it is so; to check it: kubectl multus-service explain service/web -n shop"
    )]
    fn the_message_names_the_next_command(#[case] network: Option<&str>, #[case] end: &str) {
        let service = serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "shop" } }));
        let acceptance = network.map_or(Acceptance::Rejected, |network| {
            Acceptance::Manual(NetworkRef::parse(network, "shop").unwrap())
        });
        let mut condition = accepted(&acceptance, Source::Pods, &[], Some(1));
        condition.message = "it is so".to_owned();
        assert_eq!(with_next_command(condition, &service.unwrap()).message, end);
    }

    #[rstest]
    #[case::pods(Source::Pods, &[], ("True", "Accepted"), "taken from network shop/net")]
    #[case::warned(Source::Pods, &[Reason::InvalidEndpointAddress], ("True", "AcceptedWithWarnings"), "only pods attached to shop/net")]
    #[case::slices(Source::Slices, &[], ("True", "Accepted"), "that the Service's author wrote; only pods attached to shop/net")]
    #[case::no_slices(Source::NoSlices, &[], ("True", "NoSelector"), "no EndpointSlice with label kubernetes.io/service-name")]
    #[case::no_slices_warned(Source::NoSlices, &[Reason::NetworkNotFound], ("True", "NoSelector"), "it is so; ")]
    #[case::dns(Source::Dns, &[], ("True", "NoSelector"), "DNS answers")]
    #[case::too_many(Source::NoSlices, &[Reason::TooManyServicesWithoutSelector], ("False", "TooManyServicesWithoutSelector"), "it is so")]
    fn the_condition_states_what_is_served_and_which_pods_reach_it(
        #[case] source: Source,
        #[case] reasons: &[Reason],
        #[case] want: (&str, &str),
        #[case] text: &str,
    ) {
        let network = NetworkRef::parse("net", "shop").unwrap();
        let problems: Vec<_> = reasons
            .iter()
            .map(|reason| Problem::new(*reason, "it is so"))
            .collect();
        let condition = accepted(&Acceptance::Manual(network), source, &problems, Some(1));
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), want);
        assert!(condition.message.contains(text), "{}", condition.message);
    }
}
