//! Replaces the rules and routes of the archived multus-service proxy in running pods, without a gap.
//!
//! Writes: in the calling thread's namespace, once our rules and routes are in place (routes to our VIPs are taken over in place, by
//! `routes`), removes its chains, its jump, and its routes to the VIPs that its chains name. It only ever wrote IPv4.

use crate::backend::iptables::render::Table;
use crate::backend::iptables::{Iptables, Variant};
use crate::netlink::Netlink;
use crate::netns::apply::Error;
use crate::netns::routes::{self, Routes};
use api::Family;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::net::IpAddr;
use tracing::info;

/// Prefix of the names of its chains: `MULTUS-SERVICES`, `MULTUS-SVC-…`, `MULTUS-SEP-…`.
const CHAIN_PREFIX: &str = "MULTUS-S";

/// Prefix of a rule for one of its VIPs.
const VIP_RULE: &str = "-A MULTUS-SERVICES -d ";

/// Removes its rules and routes, if there are any.
pub(crate) fn remove() -> Result<(), Error> {
    for variant in Variant::ALL {
        let found = Iptables::new(variant).remove_chains(Family::V4, Table::Nat, CHAIN_PREFIX)?;
        if let Some(listing) = found {
            let mut netlink: Netlink<RouteNetlinkMessage> =
                Netlink::open(NETLINK_ROUTE).map_err(routes::Error::Read)?;
            Routes::read(&mut netlink)?.remove_legacy(&mut netlink, vips(&listing))?;
            info!("Replaced rules of the archived multus-service proxy");
        }
    }
    Ok(())
}

fn vips(listing: &str) -> impl Iterator<Item = IpAddr> {
    let rules = listing.lines().filter_map(|line| line.strip_prefix(VIP_RULE));
    rules.filter_map(|rule| rule.split(['/', ' ']).next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vips_are_parsed_from_legacy_rules() {
        let listing = "-N MULTUS-SERVICES\n-A OUTPUT -m comment --comment \"multus service portals\" -j MULTUS-SERVICES\n-A MULTUS-SERVICES -d 172.30.10.5/32 -p tcp -m comment --comment \"default/multus-nginx-macvlan cluster IP\" -m tcp --dport 80 -j MULTUS-SVC-HEXNTD6JIC42P6W2\n-A MULTUS-SERVICES -d not-an-address -j RETURN\n";
        assert_eq!(
            vips(listing).map(|vip| vip.to_string()).collect::<Vec<_>>(),
            ["172.30.10.5"]
        );
    }
}
