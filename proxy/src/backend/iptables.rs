//! iptables backend: the programs of the image, in the legacy or the nft variant.
//!
//! Writes: chains `MSP-…` and the jumps to them, by `iptables-restore --noflush`, one transaction per table. Reads by `iptables -S`,
//! only when the rules of a namespace are unknown. No program runs when nothing differs.

mod program;
pub mod render;
mod select;

pub use program::LOCK_FILE;

use crate::backend::iptables::render::read::{self, Listing};
use crate::backend::iptables::render::{
    Chains, Change, Jump, Table, moved_sources, rejected_udp, rejection, translation, whole,
};
use crate::backend::{Backend, Error, PerItem, families, nftables};
use crate::netlink::generation;
use crate::netns::is_home;
use ::iptables::IPTables;
use api::names::CHAIN_PREFIX;
use program::WAIT;
use rules::{Base, Delta, Family, KernelState};
use select::Rules;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Kernel interface of the iptables programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// nf_tables.
    Nft,
    /// ip_tables, absent from newer kernels.
    Legacy,
}

impl Variant {
    /// Both variants, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    fn program(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft",
            (Self::Nft, Family::V6) => "ip6tables-nft",
            (Self::Legacy, Family::V4) => "iptables-legacy",
            (Self::Legacy, Family::V6) => "ip6tables-legacy",
        }
    }

    fn save(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft-save",
            (Self::Nft, Family::V6) => "ip6tables-nft-save",
            (Self::Legacy, Family::V4) => "iptables-legacy-save",
            (Self::Legacy, Family::V6) => "ip6tables-legacy-save",
        }
    }

    fn restore(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft-restore",
            (Self::Nft, Family::V6) => "ip6tables-nft-restore",
            (Self::Legacy, Family::V4) => "iptables-legacy-restore",
            (Self::Legacy, Family::V6) => "ip6tables-legacy-restore",
        }
    }
}

/// iptables backend of one variant.
#[derive(Clone, Copy, Debug)]
pub struct Iptables {
    variant: Variant,
}

impl Iptables {
    /// Creates the backend, supported or not.
    pub fn new(variant: Variant) -> Self {
        Self { variant }
    }

    /// Writes the rules of a Service, in a scratch namespace.
    pub(super) fn probe(self) -> Result<(), Error> {
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
    pub(super) fn probe_affinity(self) -> Result<(), Error> {
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

    /// Creates our hooks in both tables of a family that has no VIP yet.
    fn hook(self, delta: &Delta<'_>, family: Family) -> Result<(), Error> {
        for table in Table::ALL {
            let jumps = match delta.base(family) {
                Base::Present => continue,
                Base::Absent => table.jumps(!is_home()),
                Base::Unknown => self.missing_jumps(family, table)?,
            };
            let change = Change {
                set: table.roots(family, !is_home()),
                jumps,
                ..Change::default()
            };
            self.restore(family, table, &change)?;
        }
        Ok(())
    }

    /// Replaces all our chains, in one transaction.
    fn rebuild(self, delta: &Delta<'_>, family: Family, table: Table) -> Result<(), Error> {
        let listing = self.read(family, table)?;
        let wanted = whole(delta, table, family, !is_home());
        // A family without wanted and existing rules is skipped.
        if listing.chains.is_empty() && delta.rejected_meanwhile(family).is_empty() {
            return Ok(());
        }
        let mut change = Change::replace(listing.chains.into_keys(), wanted);
        (change.jumps, change.late_jumps) = (listing.missing_jumps, listing.late_jumps);
        self.restore(family, table, &change)
    }

    /// Returns our missing jumps; checked one by one, because a listing would be long.
    fn missing_jumps(self, family: Family, table: Table) -> Result<Vec<Jump>, Error> {
        if !self.may_hold(family, table) {
            return Ok(table.jumps(!is_home()));
        }
        let mut missing = Vec::new();
        for (hook, rule) in table.jumps(!is_home()) {
            if !self.has_rule(family, table, hook, &rule)? {
                missing.push((hook, rule));
            }
        }
        Ok(missing)
    }

    fn has_rule(self, family: Family, table: Table, hook: &str, rule: &str) -> Result<bool, Error> {
        match self.variant {
            // The check takes no lock, so that the unlimited wait of the crate has no effect.
            Variant::Nft => crate_iptables(family)
                .exists(table.name(), hook, rule)
                .map_err(|error| {
                    program::rejected(self.variant.program(family), error.to_string().as_bytes())
                }),
            Variant::Legacy => {
                let check = WAIT.into_iter().chain(["-t", table.name(), "-C", hook]);
                let check: Vec<&str> = check.chain(rule.split(' ')).collect();
                program::finds(self.variant.program(family), &check)
            }
        }
    }

    /// Reads our chains and jumps with one run of `iptables -S`; only the names of chains if there are more than the memory budget allows.
    fn read(self, family: Family, table: Table) -> Result<Listing, Error> {
        let is_pod = !is_home();
        let parse = |listing: Option<String>| {
            listing.map_or_else(
                || Listing::empty(table, is_pod),
                |text| Listing::parse(table, is_pod, &text),
            )
        };
        match self.listing(family, table, select::ours(table, Rules::Kept)) {
            Err(Error::Lists { source, .. }) => Ok(Listing {
                unread: Some(source.to_string()),
                ..parse(self.listing(family, table, select::ours(table, Rules::Dropped))?)
            }),
            listing => Ok(parse(listing?)),
        }
    }

    /// Returns the lines of `iptables -S` of a table that `keep` selects; `None` when the table is known to be empty.
    fn listing(
        self,
        family: Family,
        table: Table,
        keep: impl FnMut(&str) -> bool,
    ) -> Result<Option<String>, Error> {
        if !self.may_hold(family, table) {
            return Ok(None);
        }
        let list = [WAIT[0], WAIT[1], "-t", table.name(), "-S"];
        program::ask(self.variant.program(family), &list, keep).map(Some)
    }

    /// Removes the chains whose names begin with `prefix`, and every other rule that jumps to one of them, in one transaction: a run of a
    /// program per chain would take minutes with thousands of chains. Returns their former listing, if there was something to remove.
    pub(crate) fn remove_chains(
        self,
        family: Family,
        table: Table,
        prefix: &str,
    ) -> Result<Option<String>, Error> {
        // The kernel responds within microseconds, a program takes milliseconds, and every pod is checked when a proxy starts.
        if self.variant == Variant::Nft && !nftables::has_chain(prefix).unwrap_or(true) {
            return Ok(None);
        }
        let listing = self.listing(family, table, |line| select::concerns(line, prefix))?;
        let found = listing.and_then(|listing| Some((removal(&listing, table, prefix)?, listing)));
        if let Some((text, _)) = &found {
            self.restore_text(family, text)?;
        }
        Ok(found.map(|(_, listing)| listing))
    }

    /// Returns true when the table may have rules and reading cannot create it: iptables-legacy creates a table by reading it, and both
    /// variants fail with IPv6 disabled. For this thread's namespace: `/proc/net` would be that of the process.
    fn may_hold(self, family: Family, table: Table) -> bool {
        let names = match (self.variant, family) {
            (Variant::Nft, Family::V4) => return true,
            (Variant::Nft, Family::V6) => return Path::new("/proc/thread-self/net/if_inet6").exists(),
            (Variant::Legacy, Family::V4) => "/proc/thread-self/net/ip_tables_names",
            (Variant::Legacy, Family::V6) => "/proc/thread-self/net/ip6_tables_names",
        };
        std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == table.name()))
    }

    fn restore(self, family: Family, table: Table, change: &Change) -> Result<(), Error> {
        self.restore_text(family, &change.text(table))
    }

    fn restore_text(self, family: Family, text: &str) -> Result<(), Error> {
        let arguments = ["--noflush", WAIT[0], WAIT[1]];
        program::feed(self.variant.restore(family), &arguments, text)?;
        if self.variant == Variant::Nft {
            generation::committed();
        }
        Ok(())
    }

    /// Hashes all rules and chains of both families, without counters; one run of a program per family that has any.
    fn hash(self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        for family in Family::ALL {
            if !Table::ALL.into_iter().any(|table| self.may_hold(family, table)) {
                continue;
            }
            let hash = |line: &str| {
                // Comments contain the time, chains their counters.
                if !line.starts_with('#') {
                    let line = line.split_once(" [").map_or(line, |(chain, _)| chain);
                    line.hash(&mut hasher);
                }
                false
            };
            program::ask(self.variant.save(family), &[], hash).ok()?;
        }
        Some(hasher.finish())
    }

    /// Removes our jumps and chains from a table of both families.
    fn remove(self, table: Table) -> Result<(), Error> {
        for family in Family::ALL {
            self.remove_chains(family, table, CHAIN_PREFIX)?;
        }
        Ok(())
    }
}

/// Builds the handle of the crate without its constructor, which runs `iptables --version` and supports no variants.
fn crate_iptables(family: Family) -> IPTables {
    IPTables {
        cmd: Variant::Nft.program(family),
        has_check: true,
        has_wait: true,
        is_numeric: true,
    }
}

impl Backend for Iptables {
    fn name(&self) -> &'static str {
        match self.variant {
            Variant::Nft => "iptables-nft",
            Variant::Legacy => "iptables-legacy",
        }
    }

    fn is_present(&self) -> Result<bool, Error> {
        Ok(match self.variant {
            // A kernel without nf_tables has no rules in it.
            Variant::Nft => nftables::has_chain(CHAIN_PREFIX).unwrap_or(false),
            Variant::Legacy => {
                let tables = [Table::Nat, Table::Filter].into_iter();
                let mut tables = tables.flat_map(|table| Family::ALL.map(|family| (family, table)));
                tables.any(|(family, table)| self.may_hold(family, table))
            }
        })
    }

    /// The lock of the programs of the node is out of reach: two writers of one legacy table lose rules of each other.
    fn supports_host_netns(&self) -> bool {
        self.variant == Variant::Nft
    }

    fn buffers_whole_ruleset(&self) -> bool {
        false
    }

    /// A rule exists as text several times, and once more in the program, which reads the whole table to change a part of it. Programs need
    /// 600 bytes to 2 KiB as measured.
    fn memory_per_item(&self) -> PerItem {
        PerItem {
            whole: 4 << 10,
            change: 2 << 10,
        }
    }

    fn reports_ruleset_changes(&self) -> bool {
        self.variant == Variant::Nft
    }

    fn fingerprint(&self) -> Option<u64> {
        (self.variant == Variant::Legacy).then(|| self.hash())?
    }

    fn dump(&self) -> Result<KernelState, Error> {
        let mut dump = KernelState::default();
        for family in Family::ALL {
            let (filter, nat) = (self.read(family, Table::Filter)?, self.read(family, Table::Nat)?);
            read::read(&filter, &nat, family, !is_home(), &mut dump);
        }
        Ok(dump)
    }

    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        for family in delta.families() {
            if delta.is_rebuild() {
                self.rebuild(delta, family, Table::Filter)?;
                continue;
            }
            let change = rejection(
                &delta.rejected_meanwhile(family),
                &delta.reject,
                family,
                !is_home(),
            );
            if !change.is_empty() {
                self.hook(delta, family)?;
                self.restore(family, Table::Filter, &change)?;
            }
            let moved = moved_sources(delta, family);
            if !moved.is_empty() {
                self.restore(family, Table::Nat, &moved)?;
            }
        }
        Ok(())
    }

    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        for family in delta.families() {
            if delta.is_rebuild() {
                self.rebuild(delta, family, Table::Nat)?;
                continue;
            }
            let change = translation(delta, family);
            if !change.is_empty() {
                self.restore(family, Table::Nat, &change)?;
            }
        }
        Ok(())
    }

    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        for family in delta.families() {
            let wanted = delta.wanted_vips(family);
            let change = rejection(&wanted, &delta.unreject, family, !is_home());
            if !change.is_empty() {
                self.restore(family, Table::Filter, &change)?;
            }
        }
        Ok(())
    }

    fn remove_translation(&self) -> Result<(), Error> {
        self.remove(Table::Nat)
    }

    fn remove_rejection(&self) -> Result<(), Error> {
        self.remove(Table::Filter)
    }
}

/// Returns the user-defined chains of a listing that begin with `prefix`.
fn chains_in<'a>(listing: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let names = listing.lines().filter_map(|line| line.strip_prefix("-N "));
    names.filter(move |name| name.starts_with(prefix))
}

/// Returns the input of `iptables-restore` that removes those chains; `None` when there are none. Pure.
fn removal(listing: &str, table: Table, prefix: &str) -> Option<String> {
    let chains: Vec<_> = chains_in(listing, prefix).collect();
    if chains.is_empty() {
        return None;
    }
    let elsewhere = listing.lines().filter_map(|line| line.strip_prefix("-A "));
    let jumps = elsewhere.filter(|rule| !rule.starts_with(prefix) && select::leads_to(rule, prefix));
    // A declared chain is flushed; a chain that another one jumps to cannot be deleted.
    let lines = std::iter::once(format!("*{}", table.name()))
        .chain(chains.iter().map(|chain| format!(":{chain} - [0:0]")))
        .chain(jumps.map(|rule| format!("-D {rule}")))
        .chain(chains.iter().map(|chain| format!("-X {chain}")))
        .chain(["COMMIT".to_owned(), String::new()]);
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "-P OUTPUT ACCEPT\n-N MSP-SERVICES\n-N MSP-SVC-1\n-N OWNERS\n-A OUTPUT -j MSP-SERVICES\n-A OUTPUT -m comment --comment \"see MSP-SERVICES\" -j OWNERS\n-A MSP-SERVICES -d 172.30.0.10/32 -p tcp -j MSP-SVC-1\n-A OWNERS -p tcp -g MSP-SVC-1\n";

    #[test]
    fn removal_deletes_our_chains_and_jumps_to_them_only() {
        let want = "*nat\n:MSP-SERVICES - [0:0]\n:MSP-SVC-1 - [0:0]\n-D OUTPUT -j MSP-SERVICES\n-D OWNERS -p tcp -g MSP-SVC-1\n-X MSP-SERVICES\n-X MSP-SVC-1\nCOMMIT\n";
        assert_eq!(removal(LISTING, Table::Nat, CHAIN_PREFIX).as_deref(), Some(want));
        assert_eq!(removal("-P OUTPUT ACCEPT\n", Table::Nat, CHAIN_PREFIX), None);
    }
}
