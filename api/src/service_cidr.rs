//! Ranges of a `ServiceCIDR`. ClusterIPs are allocated from them, so no endpoint can be in one.
//!
//! Pure.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// Returns the ranges of a `ServiceCIDR`. A malformed range is skipped; the API server rejects it.
pub fn ranges(object: &ServiceCIDR) -> Vec<IpNet> {
    let listed = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    listed.filter_map(|cidr| cidr.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranges_of_both_families_are_parsed_and_malformed_ones_skipped() {
        let object = json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112", "nonsense"]}});
        let ranges = ranges(&serde_json::from_value(object).unwrap());
        let texts: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.96.0.0/16", "fd00:96::/112"]);
    }
}
