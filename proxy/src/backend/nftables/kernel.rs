//! Kernel access: writes and reads one family's table through netlink.
//!
//! Writes: the table of our name in the network namespace of the thread that opened it, one transaction per call.

use super::elements::Forget;
use super::layout::{Class, affinity_of_clients, clients};
use super::read::{
    Foreign, Found, FoundChain, FoundSet, affinities, has_to_be_forgotten, is_with_a_member, most_rules,
};
use super::skeleton::Names;
use super::statement::{Element, Statement, delete_elements};
use crate::backend::Error;
use crate::netlink::BatchError;
use crate::netlink::decode::guarded;
use crate::netlink::generation;
use crate::netlink::netfilter::{Socket, about};
use crate::netns::memory::{PER_SET, Taken, is_too_long, too_long};
use api::names::NFT_TABLE;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rules::{Family, Port};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// `NFNL_SUBSYS_NFTABLES`: subsystem of a batch.
const SUBSYSTEM: u16 = 10;

/// Largest number of sets that are requested one by one rather than listed.
const FEW: usize = 8;

/// Socket to nf_tables in one network namespace.
pub(super) struct Kernel {
    netlink: Socket,
}

impl Kernel {
    /// Opens it in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Error> {
        let netlink = Socket::open().map_err(failed("open a netlink socket"))?;
        Ok(Self { netlink })
    }

    /// Commits changes in one transaction.
    pub(super) fn change(
        &mut self,
        family: Family,
        statements: impl IntoIterator<Item = Statement>,
    ) -> Result<(), Error> {
        let mut statements = statements.into_iter().peekable();
        if statements.peek().is_none() {
            return Ok(());
        }
        let asked = std::iter::from_fn(|| {
            let Statement { message, flags } = statements.next()?;
            let ack = if statements.peek().is_none() { NLM_F_ACK } else { 0 };
            Some((about(family, message), flags | ack))
        });
        let begin = std::iter::once(control(ControlMessage::BatchBegin));
        let end = std::iter::once(control(ControlMessage::BatchEnd));
        let changed = self.netlink.change_together(begin.chain(asked).chain(end));
        changed
            .map(|()| generation::committed())
            .map_err(|BatchError { message, source }| {
                let at = message.as_ref().and_then(describe);
                Error::Kernel {
                    action: at.unwrap_or_else(|| "commit a transaction".to_owned()),
                    source,
                }
            })
    }

    /// Returns true when our table exists.
    pub(super) fn has_table(&mut self, family: Family) -> Result<bool, Error> {
        let request = about(family, NfTablesMessage::GetTable(table_by_name()));
        let found = self.netlink.fetch(&request);
        Ok(found.map_err(failed("find our table"))?.is_some())
    }

    /// Returns those of `classes` without a set.
    pub(super) fn missing(
        &mut self,
        family: Family,
        classes: &BTreeSet<Class>,
    ) -> Result<BTreeSet<Class>, Error> {
        if classes.len() > FEW {
            return Ok(classes - &self.classes(family)?);
        }
        let mut missing = BTreeSet::new();
        for class in classes {
            let attributes = vec![
                SetAttribute::Table(NFT_TABLE.to_owned()),
                SetAttribute::Name(class.set()),
            ];
            let request = about(family, NfTablesMessage::GetSet(SetMessage { attributes }));
            if self
                .netlink
                .fetch(&request)
                .map_err(failed("find a set"))?
                .is_none()
            {
                missing.insert(*class);
            }
        }
        Ok(missing)
    }

    /// Returns the classes that have a set.
    pub(super) fn classes(&mut self, family: Family) -> Result<BTreeSet<Class>, Error> {
        let classes = self.list_sets(family, |name, _| Class::of_set(name))?;
        Ok(classes.into_iter().collect())
    }

    /// Deletes affinity entries of clients whose endpoint is removed.
    pub(super) fn forget(
        &mut self,
        family: Family,
        forget: &BTreeMap<(IpAddr, Port), Forget>,
    ) -> Result<(), Error> {
        let affinities: BTreeSet<u32> = forget.values().map(|forget| forget.seconds).collect();
        for seconds in affinities {
            let map = clients(seconds);
            let of_this = |(_, of): &(&(IpAddr, Port), &Forget)| of.seconds == seconds;
            let ports: BTreeMap<_, _> = forget
                .iter()
                .filter(of_this)
                .map(|(port, of)| (*port, &of.keep))
                .collect();
            let must_go = |client: &Element| has_to_be_forgotten(family, client, &ports);
            for client in self.elements(family, &map, must_go)? {
                let element = Element {
                    key: client.key,
                    value: None,
                };
                // One by one: an entry may time out before it is deleted, which would fail the transaction of the others.
                match self.change(family, [delete_elements(&map, &[element])]) {
                    Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// Reads our table; `None` when it does not exist.
    pub(super) fn read(&mut self, family: Family) -> Result<Option<Found>, Error> {
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
                *self = Self::open()?;
                Ok(Some(Found {
                    unread: Some(format!("cannot {action}: {source}")),
                    ..Found::default()
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns those of these chains that our table has.
    pub(super) fn chains_of(
        &mut self,
        family: Family,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Result<BTreeSet<String>, Error> {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let there = self.list_chains(family, |name, _| names.contains(name).then(|| name.to_owned()))?;
        Ok(there.into_iter().collect())
    }

    /// Returns true when a table has a chain whose name begins with `prefix`.
    pub(super) fn has_chain(&mut self, family: Family, prefix: &str) -> Result<bool, Error> {
        let mut is_found = false;
        let look = |message| {
            if let Some(NfTablesMessage::NewChain(ChainMessage { attributes })) = nftables(message) {
                is_found |= attributes.iter().any(
                    |attribute| matches!(attribute, ChainAttribute::Name(name) if name.starts_with(prefix)),
                );
            }
            None::<()>
        };
        let listed = self.netlink.dump_some(&about(family, all_chains()), look);
        listed.map_err(failed("list chains"))?;
        Ok(is_found)
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
    fn list_chains<T>(
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
    fn list_sets<T>(
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
    fn elements(
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
            let mut elements = guarded(|| super::read::elements(message))?;
            elements.retain(&mut keep);
            elements.shrink_to_fit();
            Ok((!elements.is_empty()).then_some(elements))
        });
        let listed = listed.map_err(failed("list elements"))?;
        Ok(listed.into_iter().flatten().collect())
    }
}

fn all_chains() -> NfTablesMessage {
    NfTablesMessage::GetChain(ChainMessage {
        attributes: Vec::new(),
    })
}

fn control(message: ControlMessage) -> (NetfilterMessage, u16) {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    (NetfilterMessage::new(header, message), 0)
}

pub(super) fn nftables(message: NetfilterMessage) -> Option<NfTablesMessage> {
    match message.inner {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    }
}

fn table_by_name() -> TableMessage {
    TableMessage {
        attributes: vec![TableAttribute::Name(NFT_TABLE.to_owned())],
    }
}

/// Describes a message for an error.
fn describe(message: &NetfilterMessage) -> Option<String> {
    let NetfilterMessageInner::NfTables(message) = &message.inner else {
        return None;
    };
    let kind = message.message_type();
    let name = match message {
        NfTablesMessage::NewSetElement(SetElementMessage { attributes })
        | NfTablesMessage::DeleteSetElement(SetElementMessage { attributes }) => {
            attributes.iter().find_map(|attribute| match attribute {
                SetElementList::Set(set) => Some(set.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewRule(RuleMessage { attributes }) => {
            attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Chain(chain) => Some(chain.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewChain(ChainMessage { attributes })
        | NfTablesMessage::DeleteChain(ChainMessage { attributes }) => {
            attributes.iter().find_map(|attribute| match attribute {
                ChainAttribute::Name(chain) => Some(chain.as_str()),
                _ => None,
            })
        }
        NfTablesMessage::NewSet(SetMessage { attributes }) => {
            attributes.iter().find_map(|attribute| match attribute {
                SetAttribute::Name(set) => Some(set.as_str()),
                _ => None,
            })
        }
        _ => None,
    };
    Some(format!("make {kind:?} {}", name.unwrap_or("of the table")))
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Kernel {
        action: action.to_owned(),
        source,
    }
}
