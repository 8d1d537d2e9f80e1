//! iptables backend: the programs of the image, in the legacy or the nft variant.
//!
//! Writes: chains `MSP-…` and the jumps to them, by `iptables-restore --noflush`, one transaction per table. Reads by `iptables -S`,
//! only when the rules of a namespace are unknown. No program runs when nothing differs.

mod probe;
mod program;
mod removal;
pub mod render;
mod select;
mod variant;

pub use program::LOCK_FILE;
pub use variant::Variant;

use crate::backend::iptables::render::read::{self, Listing};
use crate::backend::iptables::render::{Change, Jump, Table, moved_sources, rejection, translation, whole};
use crate::backend::{Backend, Error, PerItem, nftables};
use crate::netlink::generation;
use crate::netns::is_home;
use ::iptables::IPTables;
use api::Family;
use api::names::CHAIN_PREFIX;
use program::WAIT;
use rules::{Base, Delta, KernelState};
use select::Rules;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

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
