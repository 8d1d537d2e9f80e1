//! Rejection of UDP in the nat table, after every translation: a rejected flow of the pod's own goes to a port that no socket can have.
//!
//! Pure. The kernel answers there with "port unreachable", as the node does to clients of kube-proxy. A rejection in the output hook would
//! make `send()` fail with EPERM, which programs report as a firewall. Forwarded flows are rejected in the filter table: they cannot reach
//! the loopback address.

use super::buckets::{along, bucket, per_vip, vip_of};
use super::{Chains, Change, buckets};
use api::Family;
use api::names::CHAIN_PREFIX;
use rules::Delta;
use std::collections::BTreeSet;
use std::net::IpAddr;

const ROOT: &str = "REJECT-UDP";

/// Returns the jump to these chains, the last rule of the translation chain.
pub(super) fn jump() -> String {
    format!("-p udp -m addrtype --src-type LOCAL -j {CHAIN_PREFIX}{ROOT}")
}

/// Returns the rule that sends a flow to the closed port.
pub(crate) fn to_closed_port(family: Family) -> String {
    let target = match family {
        Family::V4 => "127.0.0.1:0",
        Family::V6 => "[::1]:0",
    };
    format!("-p udp -j DNAT --to-destination {target}")
}

/// Returns all chains for these VIPs of `family`.
pub(super) fn whole(vips: &BTreeSet<IpAddr>, family: Family) -> Chains {
    buckets::whole(ROOT, family, per_vip(vips, &to_closed_port(family)))
}

/// Returns the change of `delta` in `family`.
pub(super) fn change(delta: &Delta<'_>, family: Family) -> Change {
    let changed = delta.reject_udp.iter().chain(&delta.unreject_udp);
    let of_family = changed.filter(|vip| Family::of(**vip) == family);
    let touched: BTreeSet<u8> = of_family.map(|vip| bucket(*vip)).collect();
    if touched.is_empty() {
        return Change::default();
    }
    let vips = per_vip(&delta.rejected_udp(family), &to_closed_port(family));
    let (set, delete) = along(ROOT, family, vips, &touched);
    Change {
        set,
        delete,
        ..Change::default()
    }
}

/// Parses the chains of `whole`.
pub(super) fn read(chains: &Chains, family: Family) -> BTreeSet<IpAddr> {
    let what = to_closed_port(family);
    let vips = chains.values().flatten();
    vips.filter_map(|rule| vip_of(rule, &what)).collect()
}
