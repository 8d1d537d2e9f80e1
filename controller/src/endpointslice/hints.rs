//! Topology hints: the zone or node that each endpoint should serve.
//!
//! Pure. `spec.trafficDistribution` (KEP-4444, KEP-3015), or the older topology annotation, which wins.

use super::endpoint::{EndpointKey, is_ready};
use super::packing::Draft;
use super::ports::PortGroup;
use super::{Target, proportional};
use crate::service_status::problem::{Problem, Reason};
use api::Family;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, ForNode, ForZone};
use std::collections::BTreeMap;

const TOPOLOGY_MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_AWARE_HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";

/// Hints that the author of endpoints wrote; they are used if the Service requests none.
pub(super) type Hints = BTreeMap<(PortGroup, EndpointKey), EndpointHints>;

/// Traffic distribution of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// Nowhere: no hints.
    Everywhere,
    /// In the client's zone.
    SameZone,
    /// On the client's node, else in its zone.
    SameNode,
    /// In the client's zone, endpoints distributed by the zones' CPU (the topology annotation).
    Proportional,
}

/// Returns the traffic distribution that a Service requests.
pub(crate) fn routing(service: &Service) -> Routing {
    let annotations = service.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    let mode = annotation(TOPOLOGY_AWARE_HINTS_ANNOTATION).or_else(|| annotation(TOPOLOGY_MODE_ANNOTATION));
    if matches!(mode.map(String::as_str), Some("Auto" | "auto")) {
        return Routing::Proportional;
    }
    match service
        .spec
        .as_ref()
        .and_then(|spec| spec.traffic_distribution.as_deref())
    {
        Some("PreferClose" | "PreferSameZone") => Routing::SameZone,
        Some("PreferSameNode") => Routing::SameNode,
        _ => Routing::Everywhere,
    }
}

/// Puts the hints of one family into the drafts; a draft whose hints change must be written.
pub(super) fn assign(
    target: &Target<'_>,
    family: Family,
    own_hints: &Hints,
    drafts: &mut [Draft],
) -> Option<Problem> {
    match routing(target.service) {
        Routing::Everywhere if own_hints.is_empty() => set(drafts, |_, _| None),
        Routing::Everywhere => set(drafts, |ports, endpoint| {
            let key = (PortGroup::of(ports), EndpointKey::of(endpoint));
            own_hints.get(&key).cloned()
        }),
        Routing::SameZone => set(drafts, |_, endpoint| own(endpoint, false)),
        Routing::SameNode => set(drafts, |_, endpoint| own(endpoint, true)),
        Routing::Proportional => {
            if let Err(why) = proportional::assign(target.nodes, drafts) {
                set(drafts, |_, _| None);
                return Some(Problem::new(
                    Reason::TopologyAwareHintsDisabled,
                    format!("no topology hints for the {} endpoints: {why}", family.as_str()),
                ));
            }
        }
    }
    None
}

fn set(drafts: &mut [Draft], hints: impl Fn(&[EndpointPort], &Endpoint) -> Option<EndpointHints>) {
    for draft in drafts {
        for endpoint in &mut draft.endpoints {
            let wanted = hints(&draft.ports, endpoint);
            if normal(endpoint.hints.as_ref()) != normal(wanted.as_ref()) {
                endpoint.hints = wanted;
                draft.is_changed = true;
            }
        }
    }
}

/// An empty list means the same as none.
fn normal(hints: Option<&EndpointHints>) -> (&[ForZone], &[ForNode]) {
    let zones = hints
        .and_then(|hints| hints.for_zones.as_deref())
        .unwrap_or_default();
    let nodes = hints
        .and_then(|hints| hints.for_nodes.as_deref())
        .unwrap_or_default();
    (zones, nodes)
}

/// An endpoint serves its own zone, and with `node` also its own node. An unready one gets no hints.
fn own(endpoint: &Endpoint, with_node: bool) -> Option<EndpointHints> {
    if !is_ready(endpoint) {
        return None;
    }
    let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let for_nodes = endpoint
        .node_name
        .clone()
        .filter(|_| with_node)
        .map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// The seven cases of the archived controller of hintsEnabled, with today's second annotation and the field.
    #[rstest]
    #[case::none(json!({}), json!({}), Routing::Everywhere)]
    #[case::auto(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: "Auto"}), json!({}), Routing::Proportional)]
    #[case::auto_lower(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: "auto"}), json!({}), Routing::Proportional)]
    #[case::auto_upper(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: "AUTO"}), json!({}), Routing::Everywhere)]
    #[case::disabled(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: "Disabled"}), json!({}), Routing::Everywhere)]
    #[case::enabled(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: "enabled"}), json!({}), Routing::Everywhere)]
    #[case::empty(json!({TOPOLOGY_AWARE_HINTS_ANNOTATION: ""}), json!({}), Routing::Everywhere)]
    #[case::mode(json!({TOPOLOGY_MODE_ANNOTATION: "Auto"}), json!({}), Routing::Proportional)]
    #[case::old_annotation_wins(json!({TOPOLOGY_MODE_ANNOTATION: "Auto", TOPOLOGY_AWARE_HINTS_ANNOTATION: "Disabled"}), json!({}), Routing::Everywhere)]
    #[case::annotation_wins(json!({TOPOLOGY_MODE_ANNOTATION: "Auto"}), json!({"trafficDistribution": "PreferClose"}), Routing::Proportional)]
    #[case::prefer_close(json!({}), json!({"trafficDistribution": "PreferClose"}), Routing::SameZone)]
    #[case::prefer_same_zone(json!({}), json!({"trafficDistribution": "PreferSameZone"}), Routing::SameZone)]
    #[case::prefer_same_node(json!({}), json!({"trafficDistribution": "PreferSameNode"}), Routing::SameNode)]
    #[case::unknown(json!({}), json!({"trafficDistribution": "PreferMoon"}), Routing::Everywhere)]
    fn hints_enabled(
        #[case] annotations: serde_json::Value,
        #[case] spec: serde_json::Value,
        #[case] want: Routing,
    ) {
        let service =
            serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap();
        assert_eq!(routing(&service), want);
    }
}
