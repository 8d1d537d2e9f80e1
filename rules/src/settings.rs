//! `Settings`: inputs of planning beside Services, slices and pods.
//!
//! Pure. `internalTrafficPolicy` and topology hints depend on the node; namespace isolation and reserved addresses on the cluster.

use crate::ServedService;
use api::NetworkRef;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Inputs of planning that are not Services, slices or pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Node of the pods.
    pub node: Node,
    /// Networks that a Service may name.
    pub isolation: NamespaceIsolation,
    /// Addresses that no pod can have on a secondary network.
    pub reserved: ReservedAddresses,
    /// Whether the node does not support session affinity: `sessionAffinity` is ignored and reported.
    pub lacks_affinity: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, which slices call `nodeName`. Empty: no endpoint is local.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`. `None`: no zone hint fits.
    pub zone: Option<String>,
}

/// Networks that a Service may name and that clients may use, as Multus' namespace isolation for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceIsolation {
    /// Networks of its own namespace and of global namespaces.
    Isolated {
        /// Namespaces whose networks every namespace may use.
        global_namespaces: BTreeSet<String>,
    },
    /// Any network, as in the archived multus-service project.
    Open,
}

/// Multus' own default.
impl Default for NamespaceIsolation {
    fn default() -> Self {
        Self::Isolated {
            global_namespaces: BTreeSet::from(["default".to_owned()]),
        }
    }
}

impl NamespaceIsolation {
    /// Whether a Service or a pod of `namespace` may name `network`.
    pub fn allows(&self, namespace: &str, network: &NetworkRef) -> bool {
        match self {
            Self::Open => true,
            Self::Isolated { global_namespaces } => {
                network.namespace() == namespace || global_namespaces.contains(network.namespace())
            }
        }
    }

    pub(crate) fn allows_service(&self, service: &ServedService) -> bool {
        self.allows(&service.name.namespace, &service.network)
    }
}

/// Addresses that no endpoint may have: a client that may write a pod's network-status could otherwise direct flows there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedAddresses {
    /// Ranges of ClusterIPs. Empty: not known, and not checked.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of nodes.
    pub node_addresses: BTreeSet<IpAddr>,
}

/// Reason why an address is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ReservedBy {
    /// It is in a range of ClusterIPs.
    #[error("it is inside the cluster's Service CIDR {0}")]
    ServiceCidr(IpNet),
    /// It is the address of a node.
    #[error("it is the address of a node")]
    Node,
}

impl ReservedAddresses {
    /// Checks whether `address` may be an endpoint.
    pub fn check(&self, address: IpAddr) -> Result<(), ReservedBy> {
        if let Some(cidr) = self.service_cidrs.iter().find(|cidr| cidr.contains(&address)) {
            return Err(ReservedBy::ServiceCidr(*cidr));
        }
        if self.node_addresses.contains(&address) {
            return Err(ReservedBy::Node);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::own(&["default"], "web", "macvlan1", true)]
    #[case::global(&["default"], "web", "default/macvlan1", true)]
    #[case::of_another(&["default"], "web", "shop/macvlan1", false)]
    #[case::nothing_is_global(&[], "web", "default/macvlan1", false)]
    fn a_service_names_networks_of_its_own_namespace_and_global_ones(
        #[case] global: &[&str],
        #[case] namespace: &str,
        #[case] network: &str,
        #[case] allowed: bool,
    ) {
        let network = NetworkRef::parse(network, namespace).unwrap();
        let isolated = NamespaceIsolation::Isolated {
            global_namespaces: global.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(isolated.allows(namespace, &network), allowed);
        assert!(NamespaceIsolation::Open.allows(namespace, &network));
    }

    #[rstest]
    #[case::free("10.1.0.2", None)]
    #[case::cluster_ip("172.30.0.10", Some("Service CIDR 172.30.0.0/16"))]
    #[case::cluster_ip_v6("fd00:96::a", Some("Service CIDR fd00:96::/112"))]
    #[case::node("192.168.0.4", Some("a node"))]
    fn a_reserved_address_has_a_reason(#[case] address: &str, #[case] why: Option<&str>) {
        let reserved = ReservedAddresses {
            service_cidrs: vec!["172.30.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            node_addresses: BTreeSet::from(["192.168.0.4".parse().unwrap()]),
        };
        let error = reserved
            .check(address.parse().unwrap())
            .err()
            .map(|why| why.to_string());
        assert_eq!(error.is_some(), why.is_some());
        assert!(error.unwrap_or_default().contains(why.unwrap_or_default()));
    }
}
