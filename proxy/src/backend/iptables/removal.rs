//! Removes chains, and the rules that jump to them.
//!
//! Writes: deletions by `iptables-restore --noflush`, one transaction per table.

use super::render::Table;
use super::{Iptables, Variant, select};
use crate::backend::{Error, nftables};
use api::Family;
use api::names::CHAIN_PREFIX;

impl Iptables {
    /// Removes our jumps and chains from a table of both families.
    pub(super) fn remove(self, table: Table) -> Result<(), Error> {
        for family in Family::ALL {
            self.remove_chains(family, table, CHAIN_PREFIX)?;
        }
        Ok(())
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
