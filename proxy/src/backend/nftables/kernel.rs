//! The kernel's side: one family's table, written and read by netlink.
//!
//! Writes: the table of our name in the network namespace of the thread that opened it, one transaction a call.

use super::elements::Forget;
use super::layout::{Class, clients};
use super::read::{Found, FoundChain, FoundSet, clients_to_forget};
use super::statement::{Statement, delete_elements};
use crate::backend::Error;
use crate::decode::guarded;
use crate::netfilter::{Socket, about};
use crate::netlink::BatchError;
use crate::tampering;
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

/// `NFNL_SUBSYS_NFTABLES`: which subsystem a batch is for.
const SUBSYSTEM: u16 = 10;

/// So many sets are asked for one by one rather than all listed.
const FEW: usize = 8;

/// A socket to the kernel's nf_tables, in one network namespace.
pub(super) struct Kernel {
    netlink: Socket,
}

impl Kernel {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Error> {
        let netlink = Socket::open().map_err(failed("open a netlink socket"))?;
        Ok(Self { netlink })
    }

    /// Makes these changes in one transaction.
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
            .map(|()| tampering::committed())
            .map_err(|BatchError { message, source }| {
                let at = message.as_ref().and_then(describe);
                Error::Kernel {
                    action: at.unwrap_or_else(|| "commit a transaction".to_owned()),
                    source,
                }
            })
    }

    /// Whether there is a table of our name.
    pub(super) fn has_table(&mut self, family: Family) -> Result<bool, Error> {
        let request = about(family, NfTablesMessage::GetTable(table_by_name()));
        let found = self.netlink.fetch(&request);
        Ok(found.map_err(failed("find our table"))?.is_some())
    }

    /// Which of `classes` have no set.
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

    /// The classes that have a set.
    pub(super) fn classes(&mut self, family: Family) -> Result<BTreeSet<Class>, Error> {
        let sets = self.sets(family)?;
        Ok(sets.keys().filter_map(|set| Class::of_set(set)).collect())
    }

    /// Takes clients away from endpoints that they may not have any more.
    pub(super) fn forget(
        &mut self,
        family: Family,
        forget: &BTreeMap<(IpAddr, Port), Forget>,
    ) -> Result<(), Error> {
        let affinities: BTreeSet<u32> = forget.values().map(|forget| forget.seconds).collect();
        for seconds in affinities {
            let map = clients(seconds);
            let of_this = |(_, of): &(&(IpAddr, Port), &Forget)| of.seconds == seconds;
            let ports = forget
                .iter()
                .filter(of_this)
                .map(|(port, of)| (*port, &of.keep))
                .collect();
            for element in clients_to_forget(family, &self.elements(family, &map)?, &ports) {
                // One by one: an entry may time out before it is deleted, and would spoil the transaction for the others.
                match self.change(family, [delete_elements(&map, &[element])]) {
                    Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// Everything in our table; `None` when there is none.
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
        Ok(Some(Found {
            comment,
            chains: self.chains(family)?,
            sets: self.sets_with_elements(family)?,
        }))
    }

    /// Names of the chains of our table.
    pub(super) fn chain_names(&mut self, family: Family) -> Result<BTreeSet<String>, Error> {
        Ok(self.bare_chains(family)?.into_keys().collect())
    }

    /// Whether any table has a chain whose name begins with `prefix`.
    pub(super) fn has_chain(&mut self, family: Family, prefix: &str) -> Result<bool, Error> {
        let is_one = |attribute: &ChainAttribute| matches!(attribute, ChainAttribute::Name(name) if name.starts_with(prefix));
        let chains = self.all_chains(family)?;
        Ok(chains.iter().any(|message| match message {
            NfTablesMessage::NewChain(ChainMessage { attributes }) => attributes.iter().any(is_one),
            _ => false,
        }))
    }

    fn all_chains(&mut self, family: Family) -> Result<Vec<NfTablesMessage>, Error> {
        let request = NfTablesMessage::GetChain(ChainMessage {
            attributes: Vec::new(),
        });
        self.dump(family, request, "list chains")
    }

    fn bare_chains(&mut self, family: Family) -> Result<BTreeMap<String, FoundChain>, Error> {
        let messages = self.all_chains(family)?;
        let chains = messages.into_iter().filter_map(|message| match message {
            NfTablesMessage::NewChain(ChainMessage { attributes }) => FoundChain::parse(attributes),
            _ => None,
        });
        Ok(chains.collect())
    }

    fn chains(&mut self, family: Family) -> Result<BTreeMap<String, FoundChain>, Error> {
        let mut chains = self.bare_chains(family)?;
        let table = vec![RuleAttribute::Table(NFT_TABLE.to_owned())];
        let request = NfTablesMessage::GetRule(RuleMessage { attributes: table });
        for message in self.dump(family, request, "list rules")? {
            let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else {
                continue;
            };
            let (mut name, mut expressions) = (None, Vec::new());
            for attribute in attributes {
                match attribute {
                    RuleAttribute::Chain(chain) => name = Some(chain),
                    RuleAttribute::Expressions(list) => expressions = list,
                    _ => {}
                }
            }
            if let Some(chain) = name.and_then(|name| chains.get_mut(&name)) {
                chain.rules.push(expressions);
            }
        }
        Ok(chains)
    }

    fn sets(&mut self, family: Family) -> Result<BTreeMap<String, FoundSet>, Error> {
        let attributes = vec![SetAttribute::Table(NFT_TABLE.to_owned())];
        let request = NfTablesMessage::GetSet(SetMessage { attributes });
        let messages = self.dump(family, request, "list sets")?;
        let sets = messages.into_iter().filter_map(|message| match message {
            NfTablesMessage::NewSet(SetMessage { attributes }) => FoundSet::parse(attributes),
            _ => None,
        });
        Ok(sets.collect())
    }

    fn sets_with_elements(&mut self, family: Family) -> Result<BTreeMap<String, FoundSet>, Error> {
        let mut sets = self.sets(family)?;
        for (name, set) in &mut sets {
            set.elements = self.elements(family, name)?;
        }
        Ok(sets)
    }

    fn elements(&mut self, family: Family, set: &str) -> Result<Vec<super::statement::Element>, Error> {
        let attributes = vec![
            SetElementList::Table(NFT_TABLE.to_owned()),
            SetElementList::Set(set.to_owned()),
        ];
        let request = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let listed = self.netlink.dump_unread(&about(family, request), |message| {
            guarded(|| super::read::elements(message)).map(Some)
        });
        let listed = listed.map_err(failed("list elements"))?;
        Ok(listed.into_iter().flatten().collect())
    }

    fn dump(
        &mut self,
        family: Family,
        request: NfTablesMessage,
        action: &'static str,
    ) -> Result<Vec<NfTablesMessage>, Error> {
        let found = self
            .netlink
            .dump(&about(family, request))
            .map_err(failed(action))?;
        Ok(found.into_iter().filter_map(nftables).collect())
    }
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

/// What a message does, and with what.
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
