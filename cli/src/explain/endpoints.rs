//! EndpointSlices: what they say, and whether they say what the pods do.
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

/// Most names of a difference.
const SHOWN: usize = 4;

/// The link about slices.
pub(super) fn slices(case: &Case<'_>) -> Vec<Link> {
    let existing = match &case.facts.slices {
        Ok(_) => &case.decided.existing,
        Err(lack) => return vec![Link::unknown(Topic::Slices, lack.to_string())],
    };
    if let Some(difference) = difference(case) {
        let values = case.values.clone().and("difference", difference);
        let stale = Cause::StaleSlices.broken(&values);
        // Without the nodes' addresses it is not certain which endpoints the controller leaves out.
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

/// How the slices differ from what the controller would write now; none: they do not, or it is not known.
pub(super) fn difference(case: &Case<'_>) -> Option<String> {
    let is_known = case.facts.slices.is_ok()
        && (case.facts.pods.known().is_some() || case.decided.observed.written.is_some());
    if !is_known || case.decided.observed.is_pending() {
        return None;
    }
    let (has, wants) = (entries(&case.decided.existing), entries(&case.decided.wanted()));
    if has == wants {
        return None;
    }
    let missing: BTreeSet<String> = wants.difference(&has).cloned().collect();
    let stale: BTreeSet<String> = has.difference(&wants).cloned().collect();
    let part =
        |what: &str, set: &BTreeSet<String>| (!set.is_empty()).then(|| format!("{what} {}", shown(set)));
    let parts = [part("they lack", &missing), part("they still have", &stale)];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// Whether a client that has all it needs would be served by these slices, by the proxy's code.
pub(super) fn is_served(case: &Case<'_>, slices: &[EndpointSlice]) -> bool {
    let parsed: Vec<Slice> = slices
        .iter()
        .filter_map(|slice| Slice::parse(slice).ok())
        .collect();
    let Ok(served) = &case.served else {
        // Headless: DNS answers what is ready.
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

/// Addresses of all endpoints.
pub(super) fn addresses(slices: &[EndpointSlice]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

/// Each endpoint with its port and whether it is ready.
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
