//! Destinations of the clients, from the slices of the controller and the ClusterIPs.
//!
//! Pure.

use super::objects::Destinations;
use api::Family;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Returns the addresses of ready endpoints.
pub(super) fn ready(slices: &[EndpointSlice]) -> BTreeSet<IpAddr> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let is_ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            != Some(false)
    };
    let addresses = endpoints
        .filter(is_ready)
        .flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|address| address.parse().ok()).collect()
}

/// Returns the destinations of the network's families; `None`: a family does not have every server yet, or there is none.
pub(super) fn destinations(
    endpoints: &BTreeSet<IpAddr>,
    servers: usize,
    service: Option<&Service>,
    empty: Option<&Service>,
) -> Option<Destinations> {
    let count = |family: Family| endpoints.iter().filter(|one| Family::of(**one) == family).count();
    let has_family = |address: &IpAddr| count(Family::of(*address)) == servers;
    if Family::ALL
        .into_iter()
        .any(|family| ![0, servers].contains(&count(family)))
    {
        return None;
    }
    let vips = |service: Option<&Service>| -> Vec<IpAddr> {
        let all = service
            .iter()
            .filter_map(|service| service.spec.as_ref()?.cluster_ips.as_ref());
        let parsed = all.flatten().filter_map(|vip| vip.parse().ok());
        parsed.filter(has_family).collect()
    };
    let destinations = Destinations {
        vips: vips(service),
        empty_vips: vips(empty),
        endpoints: endpoints.iter().copied().collect(),
    };
    (!destinations.vips.is_empty() && !destinations.empty_vips.is_empty()).then_some(destinations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(vips: &[&str]) -> Service {
        serde_json::from_value(json!({"spec": {"clusterIPs": vips}})).unwrap()
    }

    fn slice(kind: &str, addresses: &[&str], ready: bool) -> EndpointSlice {
        let endpoints = addresses
            .iter()
            .map(|address| json!({"addresses": [address], "conditions": {"ready": ready}}));
        serde_json::from_value(json!({"addressType": kind, "endpoints": endpoints.collect::<Vec<_>>()}))
            .unwrap()
    }

    #[test]
    fn a_family_that_the_network_does_not_have_is_not_tested() {
        let slices = [slice("IPv4", &["10.1.0.2", "10.1.0.3"], true)];
        let (web, empty) = (
            service(&["10.96.0.1", "fd00:96::1"]),
            service(&["10.96.0.2", "fd00:96::2"]),
        );
        let found = destinations(&ready(&slices), 2, Some(&web), Some(&empty)).unwrap();
        assert_eq!(found.vips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.empty_vips, ["10.96.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.endpoints.len(), 2);
    }

    #[test]
    fn a_family_that_one_server_lacks_is_waited_for() {
        let slices = [
            slice("IPv4", &["10.1.0.2", "10.1.0.3"], true),
            slice("IPv6", &["fd00::2"], true),
        ];
        let web = service(&["10.96.0.1", "fd00:96::1"]);
        assert_eq!(destinations(&ready(&slices), 2, Some(&web), Some(&web)), None);
    }

    #[test]
    fn endpoints_that_are_not_ready_are_waited_for() {
        let slices = [
            slice("IPv4", &["10.1.0.2"], true),
            slice("IPv4", &["10.1.0.3"], false),
        ];
        let web = service(&["10.96.0.1"]);
        assert_eq!(destinations(&ready(&slices), 2, Some(&web), Some(&web)), None);
        assert_eq!(destinations(&BTreeSet::new(), 2, None, None), None);
    }
}
