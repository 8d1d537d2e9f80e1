//! The address families of a Service's slices.
//!
//! Pure.

use k8s_openapi::api::core::v1::Service;
use std::net::IpAddr;

/// An address family, as a slice's `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// The name the API uses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Parses the name the API uses; the deprecated `IP` and `FQDN` are not supported.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|family| family.as_str() == text)
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The families of a Service: its `ipFamilies`; else that of its ClusterIP; else both.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let listed = spec
        .and_then(|spec| spec.ip_families.as_ref())
        .into_iter()
        .flatten();
    let mut families: Vec<_> = listed.filter_map(|text| Family::parse(text)).collect();
    if families.is_empty() {
        let address = spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok());
        families = address.map_or_else(
            || vec![Family::V4, Family::V6],
            |address| vec![Family::of(address)],
        );
    }
    families.sort_unstable();
    families.dedup();
    families
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// The ten cases of the archived controller of SupportedServiceAddressType.
    #[rstest]
    #[case::v4(json!({"ipFamilies": ["IPv4"]}), &[Family::V4])]
    #[case::v6(json!({"ipFamilies": ["IPv6"]}), &[Family::V6])]
    #[case::v4_v6(json!({"ipFamilies": ["IPv4", "IPv6"]}), &[Family::V4, Family::V6])]
    #[case::v6_v4(json!({"ipFamilies": ["IPv6", "IPv4"]}), &[Family::V4, Family::V6])]
    #[case::families_win_over_the_address(json!({"ipFamilies": ["IPv6"], "clusterIP": "172.30.0.1"}), &[Family::V6])]
    #[case::headless_families(json!({"ipFamilies": ["IPv6"], "clusterIP": "None"}), &[Family::V6])]
    #[case::cluster_ip_v4(json!({"clusterIP": "172.30.0.1"}), &[Family::V4])]
    #[case::cluster_ip_v6(json!({"clusterIP": "fd00:96::1"}), &[Family::V6])]
    #[case::headless(json!({"clusterIP": "None"}), &[Family::V4, Family::V6])]
    #[case::headless_with_selector(json!({"clusterIP": "None", "selector": {"foo": "bar"}}), &[Family::V4, Family::V6])]
    fn supported_service_address_type(#[case] spec: serde_json::Value, #[case] want: &[Family]) {
        let service: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
        assert_eq!(families(&service), want);
    }
}
