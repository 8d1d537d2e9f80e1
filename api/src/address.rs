//! Validation of endpoint addresses.
//!
//! Pure. Any client that may patch a pod can write its network-status, so its addresses are checked before they become endpoints.

use std::net::IpAddr;

/// Reason why an address cannot be an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// Checks whether `address` may be the endpoint of a Service.
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
}
