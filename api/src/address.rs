//! Validation of endpoint addresses.
//!
//! Pure. Any client that may patch a pod can write its network-status, so its addresses are checked before they become endpoints.

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Reason why an address cannot be an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// `0.0.0.0` or `::`.
    #[error("it is the unspecified address")]
    Unspecified,
    /// `127.0.0.0/8` or `::1`: it would reach the client itself.
    #[error("it is a loopback address")]
    Loopback,
    /// `169.254.0.0/16` or `fe80::/10`: the API server rejects it in an EndpointSlice.
    #[error("it is a link-local address")]
    LinkLocal,
    /// `224.0.0.0/4` or `ff00::/8`.
    #[error("it is a multicast address")]
    Multicast,
    /// `255.255.255.255`.
    #[error("it is the broadcast address")]
    Broadcast,
    /// An IPv4 address written as IPv6 (`::ffff:a.b.c.d`).
    #[error("it is an IPv4 address in IPv6 form")]
    MappedIpv4,
    /// It is in a range of ClusterIPs.
    #[error("it is inside the cluster's Service CIDR {0}")]
    ServiceCidr(IpNet),
    /// It is the address of a node.
    #[error("it is the address of a node")]
    Node,
}

/// Checks whether `address` is of a kind that may be the endpoint of a Service.
pub fn check(address: IpAddr) -> Result<(), Rejected> {
    if address.is_unspecified() {
        return Err(Rejected::Unspecified);
    }
    if address.is_loopback() {
        return Err(Rejected::Loopback);
    }
    if address.is_multicast() {
        return Err(Rejected::Multicast);
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Err(Rejected::LinkLocal),
        IpAddr::V4(v4) if v4.is_broadcast() => Err(Rejected::Broadcast),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Rejected::LinkLocal),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Rejected::MappedIpv4),
        _ => Ok(()),
    }
}

/// Checks whether `address` is outside `service_cidrs` and not the address of a node. Otherwise a client that may write a pod's
/// network-status could direct flows to a ClusterIP or to a node.
pub fn check_reserved(
    address: IpAddr,
    service_cidrs: &[IpNet],
    is_node_address: impl FnOnce(IpAddr) -> bool,
) -> Result<(), Rejected> {
    if let Some(cidr) = service_cidrs.iter().find(|cidr| cidr.contains(&address)) {
        return Err(Rejected::ServiceCidr(*cidr));
    }
    if is_node_address(address) {
        return Err(Rejected::Node);
    }
    Ok(())
}

/// Addresses that no endpoint may have, whatever their kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservedAddresses {
    /// Ranges of ClusterIPs. Empty: not known, and not checked.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of nodes.
    pub node_addresses: BTreeSet<IpAddr>,
}

impl ReservedAddresses {
    /// As [`check_reserved`].
    pub fn check(&self, address: IpAddr) -> Result<(), Rejected> {
        check_reserved(address, &self.service_cidrs, |address| {
            self.node_addresses.contains(&address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::v4("10.1.0.2", Ok(()))]
    #[case::v6("fd00:1::2", Ok(()))]
    #[case::public("203.0.113.9", Ok(()))]
    #[case::unspecified("0.0.0.0", Err(Rejected::Unspecified))]
    #[case::unspecified_v6("::", Err(Rejected::Unspecified))]
    #[case::loopback("127.3.2.1", Err(Rejected::Loopback))]
    #[case::loopback_v6("::1", Err(Rejected::Loopback))]
    #[case::link_local("169.254.1.1", Err(Rejected::LinkLocal))]
    #[case::link_local_v6("fe80::1", Err(Rejected::LinkLocal))]
    #[case::multicast("224.0.0.1", Err(Rejected::Multicast))]
    #[case::multicast_v6("ff02::1", Err(Rejected::Multicast))]
    #[case::broadcast("255.255.255.255", Err(Rejected::Broadcast))]
    #[case::mapped("::ffff:10.1.0.2", Err(Rejected::MappedIpv4))]
    fn only_unicast_addresses_of_a_network_are_endpoints(
        #[case] address: &str,
        #[case] want: Result<(), Rejected>,
    ) {
        assert_eq!(check(address.parse().unwrap()), want);
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
