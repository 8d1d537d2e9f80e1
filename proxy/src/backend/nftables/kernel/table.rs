//! Reads our table: names first, then the content of what this program writes.
//!
//! Reads only.

use super::{Kernel, all_chains, failed, nftables, table_by_name};
use crate::backend::Error;
use crate::backend::nftables::element::{self, Element};
use crate::backend::nftables::layout::affinity_of_clients;
use crate::backend::nftables::read::{
    Foreign, Found, FoundChain, FoundSet, affinities, is_with_a_member, most_rules,
};
use crate::backend::nftables::skeleton::Names;
use crate::netlink::decode::guarded;
use crate::netlink::netfilter::about;
use crate::netns::memory::{PER_SET, Taken, is_too_long, too_long};
use api::Family;
use api::names::NFT_TABLE;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, TableMessage,
};

impl Kernel {
    /// Reads our table; `None` when it does not exist.
    pub(in crate::backend::nftables) fn read(&mut self, family: Family) -> Result<Option<Found>, Error> {
        let request = about(family, NfTablesMessage::GetTable(table_by_name()));
        let found = self.netlink.fetch(&request).map_err(failed("read our table"))?;
        let Some(NfTablesMessage::NewTable(TableMessage { attributes })) = found.and_then(nftables) else {
            return Ok(None);
        };
        let comment = attributes.into_iter().find_map(|attribute| match attribute {
            TableAttribute::UserData(bytes) => Some(bytes),
            _ => None,
        });
        match self.content(family) {
            Ok(found) => Ok(Some(Found { comment, ..found })),
            Err(Error::Kernel { action, source }) if is_too_long(&source) => {
                // The kernel is still sending the list.
                *self = Self::new();
                Ok(Some(Found {
                    unread: Some(format!("cannot {action}: {source}")),
                    ..Found::default()
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the content of our table, except for its comment: names first, because nothing of foreign sets and chains is read.
    fn content(&mut self, family: Family) -> Result<Found, Error> {
        let (names, mut foreign) = (Names::of(family), Foreign::default());
        let chains = self.list_chains(family, |name, chain| {
            if names.have_chain(name) {
                return Some((name.to_owned(), chain));
            }
            foreign.add("chain", name);
            None
        })?;
        let sets = self.list_sets(family, |name, set| {
            if names.have_set(name) {
                return Some((name.to_owned(), set));
            }
            foreign.add("set", name);
            None
        })?;
        let mut found = Found {
            chains: chains.into_iter().collect(),
            sets: sets.into_iter().collect(),
            foreign,
            ..Found::default()
        };
        let rules = PER_SET * found.sets.len();
        Taken::default().add(rules).map_err(failed("list sets"))?;
        if found.foreign.is_empty() {
            self.read_rules(family, &mut found)?;
        }
        self.read_elements(family, &mut found)?;
        Ok(found)
    }

    fn read_rules(&mut self, family: Family, found: &mut Found) -> Result<(), Error> {
        let table = vec![RuleAttribute::Table(NFT_TABLE.to_owned())];
        let request = NfTablesMessage::GetRule(RuleMessage { attributes: table });
        let (most, mut count) = (most_rules(found), 0);
        let rules = self.netlink.dump_whole(&about(family, request), |message| {
            count += 1;
            if count > most {
                return Err(too_long(format!(
                    "there are more than the {most} that its sets explain"
                )));
            }
            Ok(match nftables(message) {
                Some(NfTablesMessage::NewRule(RuleMessage { attributes })) => Some(attributes),
                _ => None,
            })
        });
        for attributes in rules.map_err(failed("list rules"))? {
            let (mut name, mut expressions) = (None, Vec::new());
            for attribute in attributes {
                match attribute {
                    RuleAttribute::Chain(chain) => name = Some(chain),
                    RuleAttribute::Expressions(list) => expressions = list,
                    _ => {}
                }
            }
            if let Some(chain) = name.and_then(|name| found.chains.get_mut(&name)) {
                chain.rules.push(expressions);
            }
        }
        Ok(())
    }

    fn read_elements(&mut self, family: Family, found: &mut Found) -> Result<(), Error> {
        for (name, set) in &mut found.sets {
            if affinity_of_clients(name).is_none() {
                set.elements = self.elements(family, name, |_| true)?;
            }
        }
        // A forwarding pod has many clients: each is checked, none is kept.
        let affinities = affinities(family, found);
        for (name, map) in &mut found.sets {
            if let Some(seconds) = affinity_of_clients(name) {
                let is_current = |client: &Element| is_with_a_member(family, client, seconds, &affinities);
                self.elements(family, name, |client| {
                    map.is_outdated |= !is_current(client);
                    false
                })?;
            }
        }
        Ok(())
    }

    /// Collects what `keep` returns for the chains of our table.
    pub(super) fn list_chains<T>(
        &mut self,
        family: Family,
        mut keep: impl FnMut(&str, FoundChain) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let listed =
            self.netlink
                .dump_whole(&about(family, all_chains()), |message| match nftables(message) {
                    Some(NfTablesMessage::NewChain(ChainMessage { attributes })) => {
                        Ok(FoundChain::parse(attributes).and_then(|(name, chain)| keep(&name, chain)))
                    }
                    _ => Ok(None),
                });
        listed.map_err(failed("list chains"))
    }

    /// Collects what `keep` returns for the sets of our table.
    pub(super) fn list_sets<T>(
        &mut self,
        family: Family,
        mut keep: impl FnMut(&str, FoundSet) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let attributes = vec![SetAttribute::Table(NFT_TABLE.to_owned())];
        let request = NfTablesMessage::GetSet(SetMessage { attributes });
        let listed = self
            .netlink
            .dump_whole(&about(family, request), |message| match nftables(message) {
                Some(NfTablesMessage::NewSet(SetMessage { attributes })) => {
                    Ok(FoundSet::parse(attributes).and_then(|(name, set)| keep(&name, set)))
                }
                _ => Ok(None),
            });
        listed.map_err(failed("list sets"))
    }

    /// Returns the elements of a set that `keep` selects.
    pub(super) fn elements(
        &mut self,
        family: Family,
        set: &str,
        mut keep: impl FnMut(&Element) -> bool,
    ) -> Result<Vec<Element>, Error> {
        let attributes = vec![
            SetElementList::Table(NFT_TABLE.to_owned()),
            SetElementList::Set(set.to_owned()),
        ];
        let request = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let listed = self.netlink.dump_unread(&about(family, request), |message| {
            let mut elements = guarded(|| element::decode(message))?;
            elements.retain(&mut keep);
            elements.shrink_to_fit();
            Ok((!elements.is_empty()).then_some(elements))
        });
        let listed = listed.map_err(failed("list elements"))?;
        Ok(listed.into_iter().flatten().collect())
    }
}
