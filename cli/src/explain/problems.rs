//! The controller's problems as links.
//!
//! Pure.

use super::case::Case;
use crate::chain::{Link, Topic};
use crate::situations::Cause;
use api::service::NoNetwork;
use controller::service_status::problem::{Problem, Reason};

/// Returns the problems about a topic, each as a broken link.
pub(super) fn links(case: &Case<'_>, topic: Topic) -> Vec<Link> {
    let problems = case.decision.decision.problems.iter();
    let of_topic = problems.filter_map(|problem| {
        let found = cause(case, problem).filter(|found| found.situation().topic == topic)?;
        let (says, seen_on) = split(problem);
        let link = match found {
            // The problem names commands where the table has text.
            Cause::PodOnHostNetwork | Cause::ConflictingEndpoints => found.broken(&case.values),
            _ => found.quoted(says, &case.values),
        };
        Some(link.with(seen_on))
    });
    of_topic.collect()
}

/// Returns the situation of a problem.
pub(super) fn cause(case: &Case<'_>, problem: &Problem) -> Option<Cause> {
    Some(match problem.reason {
        Reason::InvalidNetwork => match api::service::network(case.service) {
            Err(NoNetwork::Malformed(_)) => Cause::AnnotationMalformed,
            _ => Cause::AnnotationMissing,
        },
        Reason::NetworkNotAllowed => Cause::NetworkNotAllowed,
        Reason::ExternalName => Cause::ExternalName,
        Reason::InvalidSelector => Cause::InvalidSelector,
        Reason::SelectorIgnored => Cause::SelectorIgnored,
        Reason::HeadlessWithSelector => Cause::HeadlessWithSelector,
        Reason::ConflictingEndpoints => Cause::ConflictingEndpoints,
        Reason::UnsupportedServiceType if matches!(case.served, Err(rules::NotServed::HeadlessLabel)) => {
            Cause::HeadlessLabel
        }
        Reason::UnsupportedServiceType => Cause::NodePort,
        // The network has a link of its own, which names networks of the same name elsewhere.
        Reason::NetworkNotFound => return None,
        Reason::NoPodsAttached
            if case
                .decision
                .observed
                .pods
                .iter()
                .all(|pod| pod.is_on_host_network) =>
        {
            Cause::PodOnHostNetwork
        }
        Reason::NoPodsAttached => Cause::NoPodsAttached,
        Reason::InvalidNetworkStatus => Cause::InvalidNetworkStatus,
        Reason::FamilyMissing if super::endpoints::addresses(&case.decision.wanted()).is_empty() => {
            Cause::NoAddress
        }
        Reason::FamilyMissing => Cause::FamilyMissing,
        Reason::InvalidEndpointAddress => Cause::InvalidEndpointAddress,
        Reason::DuplicateAddress => Cause::DuplicateAddress,
        Reason::EndpointsIgnored => Cause::EndpointsIgnored,
        Reason::TooManyServicesWithoutSelector => Cause::TooManyServices,
        Reason::TargetPortNotFound => Cause::TargetPortNotFound,
        Reason::TopologyAwareHintsDisabled => Cause::HintsNotGiven,
    })
}

/// Splits a problem into its statement, without the remedy, which the table has, and its object.
pub(super) fn split(problem: &Problem) -> (String, Option<String>) {
    let says = problem.message.split("; ").next().unwrap_or_default().to_owned();
    let seen_on = (!problem.seen_on.is_empty()).then(|| format!("seen on: {}", problem.seen_on));
    (says, seen_on)
}
