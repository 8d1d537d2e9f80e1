//! The administrator's settings, for every Service.
//!
//! Pure.

use ipnet::IpNet;
use std::collections::BTreeSet;

/// Settings that change which endpoints a Service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most endpoints in one slice.
    pub max_endpoints_per_slice: usize,
    /// Namespaces whose networks every Service may use. `None`: every Service may use any network.
    pub global_namespaces: Option<BTreeSet<String>>,
    /// The cluster's Service CIDRs, in which no endpoint can be: those of the command line, and of ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_endpoints_per_slice: 100,
            global_namespaces: Some(BTreeSet::from(["default".to_owned()])),
            service_cidrs: Vec::new(),
        }
    }
}
