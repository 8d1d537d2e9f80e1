//! Links about EndpointSlices: their endpoints, and whether they match the pods.
//!
//! Pure.

use super::case::Case;
use crate::chain::{Link, Topic};
use crate::facts::Known as _;
use crate::situations::Cause;
use controller::validate::is_headless;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rules::Slice;
use std::collections::BTreeSet;

/// Maximum number of names in a difference.
const SHOWN: usize = 4;

/// Returns the link about slices.
pub(super) fn slices(case: &Case<'_>) -> Vec<Link> {
    let existing = match &case.facts.slices {
        Ok(_) => &case.decision.existing,
        Err(read_error) => return vec![Link::unknown(Topic::Slices, read_error.to_string())],
    };
    if let Some(difference) = difference(case) {
        let values = case.values.clone().and("difference", difference);
        let stale = Cause::StaleSlices.broken(&values);
        // Without the addresses of nodes the endpoints that the controller rejects are not known.
        let is_certain = case.facts.cluster.nodes.is_ok();
        return vec![if is_certain { stale } else { stale.softened() }];
    }
    let found = addresses(existing);
    let text = match found.len() {
        0 if is_headless(case.service) && existing.is_empty() => {
            "DNS answers what the Service's author wrote".to_owned()
        }
        count => format!(
            "EndpointSlices of the controller: {}, endpoint addresses: {count} ({})",
            existing.len(),
            shown(&found)
        ),
    };
    vec![Link::good(Topic::Slices, text)]
}

/// Returns the difference between the slices and those the controller would write; `None`: no difference, or not known.
pub(super) fn difference(case: &Case<'_>) -> Option<String> {
    let is_known = case.facts.slices.is_ok()
        && (case.facts.pods.known().is_some() || case.decision.observed.written.is_some());
    if !is_known || case.decision.observed.is_pending() {
        return None;
    }
    let (has, wants) = (entries(&case.decision.existing), entries(&case.decision.wanted()));
    if has == wants {
        return None;
    }
    let missing: BTreeSet<String> = wants.difference(&has).cloned().collect();
    let stale: BTreeSet<String> = has.difference(&wants).cloned().collect();
    let part =
        |what: &str, set: &BTreeSet<String>| (!set.is_empty()).then(|| format!("{what} {}", shown(set)));
    let parts = [part("they read_error", &missing), part("they still have", &stale)];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// Whether these slices serve a client without shortcomings, by the proxy's code.
pub(super) fn is_served(case: &Case<'_>, slices: &[EndpointSlice]) -> bool {
    let parsed: Vec<Slice> = slices
        .iter()
        .filter_map(|slice| Slice::parse(slice).ok())
        .collect();
    let Ok(served) = &case.served else {
        // Headless: DNS returns ready endpoints.
        let mut endpoints = parsed.iter().flat_map(|slice| &slice.endpoints);
        return endpoints.any(|endpoint| endpoint.ready && !endpoint.addresses.is_empty());
    };
    let anywhere = rules::ServedService {
        is_local: false,
        ..served.clone()
    };
    let settings = crate::settings::of_proxy(&case.facts.cluster, "");
    let plan = rules::service_plan(&settings, &anywhere, &parsed);
    let mut ports = plan.vips.values().flat_map(|vip| vip.ports.values());
    ports.any(|port| !port.endpoints.is_empty())
}

pub(super) fn addresses(slices: &[EndpointSlice]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

/// Returns each endpoint with its port and readiness.
fn entries(slices: &[EndpointSlice]) -> BTreeSet<String> {
    let parsed = slices.iter().filter_map(|slice| Slice::parse(slice).ok());
    let mut entries = BTreeSet::new();
    for slice in parsed {
        for endpoint in &slice.endpoints {
            let state = if endpoint.ready { "" } else { " (not ready)" };
            for address in &endpoint.addresses {
                if slice.ports.is_empty() {
                    entries.insert(format!("{address}{state}"));
                }
                for (_, port) in &slice.ports {
                    entries.insert(format!("{address} port {}/{}{state}", port.number, port.protocol));
                }
            }
        }
    }
    entries
}

fn shown(set: &BTreeSet<String>) -> String {
    let names: Vec<&str> = set.iter().take(SHOWN).map(String::as_str).collect();
    let more = set.len().saturating_sub(SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{more}", names.join(", "))
}
