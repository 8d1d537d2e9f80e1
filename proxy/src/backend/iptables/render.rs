//! Renders PodRules for `iptables-restore`.
//!
//! Pure. Two tables of each family have our chains:
//!
//! ```text
//! filter  OUTPUT, FORWARD    ─► MSP-VIPS ─► MSP-VIPS-D ─► MSP-VIPS-3D             one rule per VIP: what still has one as
//!                               MSP-REJECT    TCP reset, else port unreachable    destination here was not translated;
//!                                                                               then drops resets of no flow
//! nat     OUTPUT, PREROUTING ─► MSP-SERVICES ─► MSP-SERVICES-D ─► MSP-SERVICES-3D   one rule per VIP, protocol and port
//!                                            ─► MSP-REJECT-UDP ─► …-D ─► …-3D       one rule per VIP: the pod's own untranslated UDP
//!                               MSP-SVC-…     one rule per endpoint, each as likely as the other
//!                               MSP-SEP-…     one endpoint of a port with affinity, and its clients
//!         POSTROUTING        ─► MSP-SOURCES ─► MSP-SOURCES-3D    one rule per VIP: its flows leave with the pod's address there
//! ```
//!
//! The rejection is in filter because nat chains do not run at all while no rule of the namespace uses connection tracking. Rules
//! are rendered exactly as `iptables -S` prints them, so that a listing can be compared with the wanted rules.

mod buckets;
mod edits;
pub(crate) mod read;
pub(crate) mod rejected_udp;
mod rejection;
mod sources;
mod translation;

pub use edits::Edit;
pub use rejection::rejection;
pub use sources::moved_sources;
pub use translation::translation;

use api::Family;
use api::names::CHAIN_PREFIX;
use rules::Delta;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Built-in chain, and the rule in it that jumps to ours.
pub type Jump = (&'static str, String);

/// Rules of each chain, in order, without `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;

/// Table with our chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Table of rejections.
    Filter,
    /// Table of translations.
    Nat,
}

impl Table {
    /// Both tables, in the order of writes.
    pub const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }

    /// Returns our chain that matches the destination of a packet.
    pub fn root(self) -> String {
        let name = match self {
            Self::Filter => rejection::ROOT,
            Self::Nat => translation::ROOT,
        };
        format!("{CHAIN_PREFIX}{name}")
    }

    /// Returns our chains that exist without any VIP.
    pub fn roots(self, family: Family, is_pod: bool) -> Chains {
        let none = BTreeSet::new();
        match self {
            Self::Filter => rejection::whole(&none, family, is_pod),
            Self::Nat => {
                let mut chains = translation::whole_of(&[], &none, family);
                chains.extend(sources::whole(&BTreeMap::new()));
                chains
            }
        }
    }

    /// Returns the jumps from built-in chains. Forwarded packets are translated only in a pod: on a node, pods would reach networks that they
    /// are not attached to.
    pub fn jumps(self, is_pod: bool) -> Vec<Jump> {
        let root = self.root();
        let jumps = match self {
            // Not for established flows: every packet of the pod would search for its VIP.
            Self::Filter => Vec::from(["OUTPUT", "FORWARD"].map(|hook| {
                let rule = format!("-m conntrack ! --ctstate RELATED,ESTABLISHED -j {root}");
                (hook, rule)
            })),
            Self::Nat => {
                let sources = format!("-m conntrack --ctstate DNAT -j {}", sources::root());
                let mut jumps = Vec::from(["OUTPUT", "PREROUTING"].map(|hook| (hook, format!("-j {root}"))));
                jumps.push(("POSTROUTING", sources));
                jumps
            }
        };
        let is_wanted = |(hook, _): &(&str, String)| is_pod || *hook != "PREROUTING";
        jumps.into_iter().filter(is_wanted).collect()
    }
}

/// Change of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Chains to create or replace.
    pub set: Chains,
    /// Rules to change in existing chains, in this order.
    pub edits: Vec<Edit>,
    /// Chains to delete; none need exist.
    pub delete: BTreeSet<String>,
    /// Rules to insert first in built-in chains.
    pub jumps: Vec<Jump>,
    /// Rules that exist and are not first, to be deleted before.
    pub late_jumps: Vec<Jump>,
}

impl Change {
    /// Returns true when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the change that replaces all our chains by `wanted`.
    pub fn replace(present: impl IntoIterator<Item = String>, wanted: Chains) -> Self {
        let delete = present
            .into_iter()
            .filter(|chain| !wanted.contains_key(chain))
            .collect();
        Self {
            set: wanted,
            delete,
            ..Self::default()
        }
    }

    /// Returns the input of `iptables-restore --noflush`, which is one transaction.
    ///
    /// A `:CHAIN` line creates or flushes the chain; no packet sees it empty.
    pub fn text(&self, table: Table) -> String {
        let Self {
            set,
            edits,
            delete,
            jumps,
            late_jumps,
        } = self;
        let mut text = format!("*{}\n", table.name());
        for chain in set.keys().chain(delete) {
            text.extend([":", chain, " - [0:0]\n"]);
        }
        for (chain, rules) in set {
            for rule in rules {
                text.extend(["-A ", chain, " ", rule, "\n"]);
            }
        }
        for edit in edits {
            edit.write(&mut text);
        }
        for (hook, rule) in late_jumps {
            text.extend(["-D ", hook, " ", rule, "\n"]);
        }
        for (hook, rule) in jumps.iter().chain(late_jumps) {
            text.extend(["-I ", hook, " 1 ", rule, "\n"]);
        }
        for chain in delete {
            text.extend(["-X ", chain, "\n"]);
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Returns all our chains of a table of `family` after `delta` is written.
pub fn whole(delta: &Delta<'_>, table: Table, family: Family, is_pod: bool) -> Chains {
    match table {
        Table::Filter => rejection::whole(&delta.rejected_meanwhile(family), family, is_pod),
        Table::Nat => {
            let mut chains = translation::whole(delta.wanted(), &delta.wanted_vips(family), family);
            chains.extend(sources::whole(&delta.wanted().source_addresses(family)));
            chains
        }
    }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    }
}

#[cfg(test)]
mod tests;
