//! Trials of the rules that this backend writes.
//!
//! Writes: rules in the calling thread's namespace, which is a scratch namespace.

use super::Iptables;
use super::render::{Chains, Change, Table, rejected_udp, rejection};
use crate::backend::{Error, families};
use api::Family;
use api::names::CHAIN_PREFIX;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Iptables {
    /// Writes the rules of a Service, in a scratch namespace.
    pub(in crate::backend) fn probe(self) -> Result<(), Error> {
        for family in families() {
            let (endpoint, vip): (_, IpAddr) = match family {
                Family::V4 => ("10.1.0.2", Ipv4Addr::LOCALHOST.into()),
                Family::V6 => ("[fd00:1::2]", Ipv6Addr::LOCALHOST.into()),
            };
            let trial = [
                format!(
                    "-p tcp -m tcp --dport 80 -m comment --comment \"trial\" -m statistic --mode random --probability 0.5 -j DNAT --to-destination {endpoint}:80"
                ),
                format!("-p udp -j DNAT --to-destination {endpoint}:53"),
                rejected_udp::to_closed_port(family),
            ];
            let sources = [
                "-m addrtype --src-type LOCAL --limit-iface-out -j RETURN".to_owned(),
                format!("-m conntrack --ctorigdst {vip} -j SNAT --to-source {vip}"),
            ];
            let nat = Change {
                set: Chains::from([
                    (format!("{CHAIN_PREFIX}TRIAL"), trial.to_vec()),
                    (format!("{CHAIN_PREFIX}TRIAL-SOURCES"), sources.to_vec()),
                ]),
                ..Change::default()
            };
            let vips = BTreeSet::from([vip]);
            let filter = Change {
                jumps: Table::Filter.jumps(true),
                ..rejection(&vips, &vips, family, true)
            };
            self.restore(family, Table::Filter, &filter)?;
            self.restore(family, Table::Nat, &nat)?;
        }
        Ok(())
    }

    /// Writes the rules of session affinity, in a scratch namespace. A kernel without that match would reject the whole table of a pod.
    pub(in crate::backend) fn probe_affinity(self) -> Result<(), Error> {
        for family in families() {
            let (mask, endpoint) = match family {
                Family::V4 => ("255.255.255.255", "10.1.0.2"),
                Family::V6 => ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[fd00:1::2]"),
            };
            let trial = format!(
                "-p tcp -m recent --set --name MSP-TRIAL --mask {mask} --rsource -j DNAT --to-destination {endpoint}:80"
            );
            let nat = Change {
                set: Chains::from([(format!("{CHAIN_PREFIX}TRIAL"), vec![trial])]),
                ..Change::default()
            };
            self.restore(family, Table::Nat, &nat)?;
        }
        Ok(())
    }
}
