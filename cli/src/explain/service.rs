//! Links about the Service and its network.
//!
//! Pure.

use super::case::Case;
use super::problems::links;
use crate::chain::{Link, Topic};
use crate::facts::{Known as _, ReadError};
use crate::situations::{Cause, Values};
use api::ObjectName;
use api::names::{PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NETWORK_ANNOTATION};
use controller::service_status::problem::Reason;
use k8s_openapi::api::core::v1::Service;
use rules::NotServed;

/// Returns the links about its existence and its label.
pub(super) fn label(service: &Service) -> (Link, Link) {
    let key = ObjectName::of(service);
    let values = Values::default()
        .and("namespace", &key.namespace)
        .and("name", &key.name);
    let labels = service.metadata.labels.as_ref();
    let value = labels.and_then(|labels| labels.get(PROXY_NAME_LABEL));
    let label = match value {
        None => Cause::LabelMissing.broken(&values),
        Some(_) if api::service::has_proxy_label(service) => {
            Link::good(Topic::Label, format!("{PROXY_NAME_LABEL}={PROXY_NAME}"))
        }
        Some(value) => Cause::LabelValue.broken(&values.and("value", format!("{value:?}"))),
    };
    (Link::good(Topic::Service, outline(service)), label)
}

fn outline(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.iter().map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        format!("{}/{protocol}", port.port)
    });
    format!(
        "{}, type {}, clusterIPs {}, ports {}",
        ObjectName::of(service),
        spec.type_.as_deref().unwrap_or("ClusterIP"),
        spec.cluster_ips.unwrap_or_default().join(" and "),
        ports.collect::<Vec<_>>().join(", ")
    )
}

/// Returns the links about its annotation and the controller's validation.
pub(super) fn annotation(case: &Case<'_>) -> Vec<Link> {
    let mut found = links(case, Topic::Label);
    if !found.is_empty() && matches!(case.served, Err(NotServed::HeadlessLabel)) {
        return found;
    }
    found = found.into_iter().map(Link::softened).collect();
    let stated = links(case, Topic::Annotation);
    let is_rejected = |link: &Link| {
        let problems = case.decision.decision.problems.iter();
        let mut rejections = problems.filter(|problem| problem.reason.is_rejection());
        rejections.any(|problem| super::problems::cause(case, problem) == link.cause)
    };
    let (rejected, warned): (Vec<Link>, Vec<Link>) = stated.into_iter().partition(is_rejected);
    found.extend(rejected);
    found.extend(too_many(case));
    if let Some(network) = &case.network {
        let text = format!("{SERVICE_NETWORK_ANNOTATION} names network {network}");
        found.push(Link::good(Topic::Annotation, text));
    }
    found.extend(warned.into_iter().map(Link::softened));
    found
}

/// Returns the link about the network.
pub(super) fn network(case: &Case<'_>) -> Vec<Link> {
    let Some(network) = &case.network else {
        return Vec::new();
    };
    let link = match &case.facts.networks {
        Err(ReadError::NoKind(_)) => Cause::MultusMissing.broken(&case.values),
        Err(read_error) => Link::unknown(Topic::Network, read_error.to_string()),
        Ok(known) if !known.covers(network.namespace()) => Link::unknown(
            Topic::Network,
            format!(
                "no permission to list network-attachment-definitions in namespace {}",
                network.namespace()
            ),
        ),
        Ok(known) => {
            let problems = case.decision.decision.problems.iter();
            let mut missing = problems.filter(|problem| problem.reason == Reason::NetworkNotFound);
            let mut others = known.found.iter().filter(|other| other.name == network.name());
            match (missing.next(), others.next()) {
                (None, _) => Link::good(
                    Topic::Network,
                    format!("network-attachment-definition {network} exists"),
                ),
                (Some(_), Some(other)) => {
                    let all: Vec<String> = known
                        .found
                        .iter()
                        .filter(|one| one.name == network.name())
                        .map(ToString::to_string)
                        .collect();
                    let values = case
                        .values
                        .clone()
                        .and("other", other.to_string())
                        .and("others", all.join(", "));
                    Cause::NetworkElsewhere.broken(&values)
                }
                (Some(problem), None) => {
                    Cause::NetworkNotFound.quoted(&super::problems::split(problem).0, &case.values)
                }
            }
        }
    };
    let has_endpoints =
        case.facts.pods.known().is_some() && super::endpoints::is_served(case, &case.decision.wanted());
    // Running pods keep their interfaces.
    vec![if has_endpoints && link.cause.is_some() {
        link.softened()
    } else {
        link
    }]
}

/// Only the controller knows the number of Services without selector: its condition reports it.
fn too_many(case: &Case<'_>) -> Option<Link> {
    let condition = controller::service_status::condition::current(case.service)?;
    let is_so =
        condition.status == "False" && condition.reason == Reason::TooManyServicesWithoutSelector.as_str();
    let says = condition.message.split("; ").next().unwrap_or_default();
    is_so.then(|| Cause::TooManyServices.quoted(says, &case.values))
}
