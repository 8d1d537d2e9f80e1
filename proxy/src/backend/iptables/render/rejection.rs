//! Rejection in the filter table of packets that were not translated.
//!
//! Pure.

use super::buckets::{along, bucket, per_vip};
use super::{Chains, Change, buckets};
use api::Family;
use api::names::CHAIN_PREFIX;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(super) const ROOT: &str = "VIPS";
const REJECT: &str = "REJECT";

/// Rule in pods. A reply outside of the window is invalid to connection tracking: it comes from the endpoint and not from the VIP. No socket
/// waits for it, and the kernel's reset, which belongs to no flow either, would end the real connection. Packets on the cluster network are
/// not changed.
const INVALID_RESET: &str =
    "! -o eth0 -p tcp -m tcp --tcp-flags RST RST -m conntrack --ctstate INVALID -j DROP";

/// Returns all chains that reject these VIPs of `family`.
pub(super) fn whole(vips: &BTreeSet<IpAddr>, family: Family, is_pod: bool) -> Chains {
    let mut chains = buckets::whole(ROOT, family, per_vip(vips, &to_reject_chain()));
    chains.entry(root()).or_default().extend(invalid_reset(is_pod));
    chains.insert(reject_chain(), reject(family));
    chains
}

/// Returns the change to rejected `vips`, of which only `changed` ones differ.
pub fn rejection(
    vips: &BTreeSet<IpAddr>,
    changed: &BTreeSet<IpAddr>,
    family: Family,
    is_pod: bool,
) -> Change {
    let of_family = changed.iter().filter(|vip| Family::of(**vip) == family);
    let touched: BTreeSet<u8> = of_family.map(|vip| bucket(*vip)).collect();
    let (mut set, delete) = along(ROOT, family, per_vip(vips, &to_reject_chain()), &touched);
    if !touched.is_empty() {
        // Two rules: writing them again is cheaper than a search.
        set.insert(reject_chain(), reject(family));
        set.entry(root()).or_default().extend(invalid_reset(is_pod));
    }
    Change {
        set,
        delete,
        ..Change::default()
    }
}

/// Not on a node, where foreign flows are not changed.
fn invalid_reset(is_pod: bool) -> Option<String> {
    is_pod.then(|| INVALID_RESET.to_owned())
}

fn root() -> String {
    format!("{CHAIN_PREFIX}{ROOT}")
}

fn reject_chain() -> String {
    format!("{CHAIN_PREFIX}{REJECT}")
}

/// Returns the target of packets to a VIP.
pub(super) fn to_reject_chain() -> String {
    format!("-j {}", reject_chain())
}

fn reject(family: Family) -> Vec<String> {
    let unreachable = match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    };
    vec![
        "-p tcp -j REJECT --reject-with tcp-reset".to_owned(),
        format!("-j REJECT --reject-with {unreachable}"),
    ]
}
