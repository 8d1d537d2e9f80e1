//! The administrator's settings, for every Service.
//!
//! Pure.

use api::NamespaceIsolation;
use ipnet::IpNet;

/// Settings that change which endpoints a Service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most endpoints in one slice.
    pub max_endpoints_per_slice: usize,
    /// Networks that a Service may name.
    pub isolation: NamespaceIsolation,
    /// The cluster's Service CIDRs, in which no endpoint can be: those of the command line, and of ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_endpoints_per_slice: 100,
            isolation: NamespaceIsolation::default(),
            service_cidrs: Vec::new(),
        }
    }
}
