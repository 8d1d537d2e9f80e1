//! A range of ClusterIPs, as a `ServiceCIDR` has it.
//!
//! Pure. Its conditions are ignored.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// The ranges of one `ServiceCIDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    pub name: String,
    pub ranges: Vec<IpNet>,
}

impl From<ServiceCIDR> for ServiceCidr {
    fn from(object: ServiceCIDR) -> Self {
        Self {
            ranges: api::service_cidr::ranges(&object),
            name: object.metadata.name.unwrap_or_default(),
        }
    }
}
