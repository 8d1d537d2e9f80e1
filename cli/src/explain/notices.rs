//! The controller's notices as links.
//!
//! Pure.

use super::case::Case;
use crate::chain::{Link, Topic};
use crate::situations::Cause;
use api::service::NoNetwork;
use controller::service_status::problem::{Notice, Reason};

/// The notices about a topic, each as a broken link.
pub(super) fn links(case: &Case<'_>, topic: Topic) -> Vec<Link> {
    let notices = case.decided.decision.notices.iter();
    let of_topic = notices.filter_map(|notice| {
        let found = cause(case, notice).filter(|found| found.situation().topic == topic)?;
        let (says, seen_on) = split(notice);
        let link = match found {
            // The notice names commands where the table has words.
            Cause::PodOnHostNetwork | Cause::ForeignEndpoints => found.broken(&case.values),
            _ => found.quoted(says, &case.values),
        };
        Some(link.with(seen_on))
    });
    of_topic.collect()
}

/// Which situation a notice is.
pub(super) fn cause(case: &Case<'_>, notice: &Notice) -> Option<Cause> {
    Some(match notice.reason {
        Reason::InvalidNetwork => match api::service::network(case.service) {
            Err(NoNetwork::Malformed(_)) => Cause::AnnotationMalformed,
            _ => Cause::AnnotationMissing,
        },
        Reason::NetworkNotAllowed => Cause::NetworkNotAllowed,
        Reason::ExternalName => Cause::ExternalName,
        Reason::InvalidSelector => Cause::InvalidSelector,
        Reason::SelectorIgnored => Cause::SelectorIgnored,
        Reason::HeadlessWithSelector => Cause::HeadlessWithSelector,
        Reason::ForeignEndpoints => Cause::ForeignEndpoints,
        Reason::NotOnThisNetwork if matches!(case.served, Err(rules::NotServed::HeadlessLabel)) => {
            Cause::HeadlessLabel
        }
        Reason::NotOnThisNetwork => Cause::NodePort,
        // The network has a link of its own, which knows where else one of that name is.
        Reason::NetworkNotFound => return None,
        Reason::NotAttached
            if case
                .decided
                .observed
                .pods
                .iter()
                .all(|pod| pod.is_on_host_network) =>
        {
            Cause::PodOnHostNetwork
        }
        Reason::NotAttached => Cause::PodNotAttached,
        Reason::InvalidNetworkStatus => Cause::InvalidNetworkStatus,
        Reason::FamilyMissing if super::endpoints::addresses(&case.decided.wanted()).is_empty() => {
            Cause::NoAddress
        }
        Reason::FamilyMissing => Cause::FamilyMissing,
        Reason::InvalidEndpointAddress => Cause::InvalidEndpointAddress,
        Reason::DuplicateAddress => Cause::DuplicateAddress,
        Reason::NotTaken => Cause::EndpointsNotTaken,
        Reason::TooManyByHand => Cause::TooManyServices,
        Reason::TargetPortNotFound => Cause::TargetPortNotFound,
        Reason::TopologyAwareHintsDisabled => Cause::HintsNotGiven,
    })
}

/// What a notice says, without its remedy, which the table has; and what it was seen on.
pub(super) fn split(notice: &Notice) -> (String, Option<String>) {
    let says = notice.message.split("; ").next().unwrap_or_default().to_owned();
    let seen_on = (!notice.seen_on.is_empty()).then(|| format!("seen on: {}", notice.seen_on));
    (says, seen_on)
}
