//! Links about the pods of the Service.
//!
//! Pure. The statements are the controller's; the Service is broken if the proxy's code would serve no port.

use super::case::Case;
use super::endpoints::{addresses, is_served};
use super::problems::links;
use crate::chain::{Link, Topic};
use crate::facts::Known as _;
use crate::situations::Cause;
use controller::index::AuthorSlices;
use controller::validate::{Acceptance, is_headless};

/// Reasons for an unserved Service, in order of precedence.
const BY_WEIGHT: [Cause; 8] = [
    Cause::PodOnHostNetwork,
    Cause::NoPodsAttached,
    Cause::InvalidNetworkStatus,
    Cause::InvalidEndpointAddress,
    Cause::NoAddress,
    Cause::FamilyMissing,
    Cause::TargetPortNotFound,
    Cause::EndpointsIgnored,
];

/// Returns the links about pods, or about manual slices.
pub(super) fn pods(case: &Case<'_>) -> Vec<Link> {
    let mut found = links(case, Topic::Pods);
    let wanted = case.decision.wanted();
    let is_served = is_served(case, &wanted);
    let mut outcome = match case.decision.acceptance() {
        Some(Acceptance::Manual(_)) => manual(case),
        _ => selected(case),
    };
    if is_served || outcome.cause.is_none() && outcome.state == crate::chain::State::Unknown {
        let warned = found.into_iter().map(Link::softened);
        return [outcome].into_iter().chain(warned).collect();
    }
    if outcome.cause.is_none() && !(is_headless(case.service) && is_manual(case)) {
        let weight = |cause: Cause| BY_WEIGHT.iter().position(|one| *one == cause);
        found.sort_by_key(|link| link.cause.and_then(weight).unwrap_or(BY_WEIGHT.len()));
        let is_reason = found
            .first()
            .and_then(|link| link.cause)
            .is_some_and(|cause| weight(cause).is_some());
        if is_reason {
            return found;
        }
        let count = addresses(&wanted).len();
        outcome = Cause::NotReady.broken(&case.values.clone().and("count", count.to_string()));
    }
    let warned = found.into_iter().map(Link::softened);
    warned.chain([outcome]).collect()
}

fn is_manual(case: &Case<'_>) -> bool {
    matches!(case.decision.acceptance(), Some(Acceptance::Manual(_)))
}

fn selected(case: &Case<'_>) -> Link {
    let Some(_) = case.facts.pods.known() else {
        let read_error = case.facts.pods.read_error().map(ToString::to_string);
        return Link::unknown(Topic::Pods, read_error.unwrap_or_default());
    };
    let pods = &case.decision.observed.pods;
    if pods.iter().all(|pod| pod.is_finished) {
        return Cause::SelectorMatchesNothing.broken(&case.values);
    }
    let network = case.network.as_ref();
    let is_attached = |pod: &&std::sync::Arc<controller::objects::Pod>| {
        let attachments = pod.attachments.iter().flatten();
        network.is_some_and(|network| attachments.into_iter().any(|one| network.is_named(&one.network)))
    };
    let attached = pods.iter().filter(is_attached);
    let ready = attached.clone().filter(|pod| pod.is_ready).count();
    let text = format!(
        "{} selected, {} attached, {ready} ready",
        pods.len(),
        attached.count()
    );
    Link::good(Topic::Pods, text)
}

fn manual(case: &Case<'_>) -> Link {
    match &case.decision.observed.written {
        Some(AuthorSlices::Slices(slices)) if slices.is_empty() && case.facts.slices.is_ok() => {
            Cause::NoEndpointSlices.broken(&case.values)
        }
        Some(AuthorSlices::Slices(slices)) if !slices.is_empty() => Link::good(
            Topic::Pods,
            format!(
                "the Service selects no pods; its author wrote {} EndpointSlices",
                slices.len()
            ),
        ),
        Some(_) => Link::unknown(
            Topic::Pods,
            "the slices that the Service's author wrote are not known",
        ),
        None => Link::good(
            Topic::Pods,
            "the Service selects no pods and has no ClusterIP: DNS answers what its author wrote, unchecked",
        ),
    }
}
