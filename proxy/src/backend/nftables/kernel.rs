//! Kernel access: writes and reads one family's table through netlink.
//!
//! Writes: the table of our name in the network namespace of the thread that opened it, one transaction per call.

mod table;

use super::element::Element;
use super::elements::Forget;
use super::known_sets;
use super::layout::{Class, clients};
use super::read::has_to_be_forgotten;
use super::statement::{Statement, delete_elements};
use crate::backend::Error;
use crate::netlink::BatchError;
use crate::netlink::generation;
use crate::netlink::netfilter::{self, Socket, about};
use api::Family;
use api::names::NFT_TABLE;
use netlink_packet_core::{DefaultNla, NLM_F_ACK};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rules::Port;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::Range;

/// `NFNL_SUBSYS_NFTABLES`: subsystem of a batch.
const SUBSYSTEM: u16 = 10;

/// `NFNL_MSG_BATCH_BEGIN`, and its attribute `NFNL_BATCH_GENID`.
const BATCH_BEGIN: u8 = 16;
const BATCH_GENERATION: u16 = 1;

/// Bytes of the generation in a batch: after the headers of netlink, netfilter and the attribute.
const GENERATION: Range<usize> = 24..28;

/// errno of the kernel that has no name in user space.
const ERESTART: i32 = 85;

/// Largest number of sets that are requested one by one rather than listed.
const FEW: usize = 8;

/// Socket to nf_tables in one network namespace.
pub(super) struct Kernel {
    netlink: Socket,
}

impl Kernel {
    /// Returns access to the network namespace of the calling thread.
    pub(super) fn new() -> Self {
        Self {
            netlink: netfilter::socket(),
        }
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
        let begin = std::iter::once(control(begin(generation::expected())));
        let end = std::iter::once(control(ControlMessage::BatchEnd));
        let batch = self.netlink.batch(begin.chain(asked).chain(end));
        let mut batch = batch.map_err(failed("commit a transaction"))?;
        let mut committed = self.netlink.commit(&batch);
        if committed.as_ref().is_err_and(is_stale) && generation::expected().is_some() {
            if !generation::has_committed() {
                return Err(Error::Stale);
            }
            // The first transaction was right, so this one is finished; the caller sees that the generation is unknown.
            generation::expect(None);
            batch.datagram[GENERATION].fill(0);
            committed = self.netlink.commit(&batch);
        }
        committed
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
        let unknown: BTreeSet<Class> = classes
            .iter()
            .copied()
            .filter(|class| !known_sets::is_known(family, *class))
            .collect();
        if unknown.len() > FEW {
            return Ok(&unknown - &self.classes(family)?);
        }
        let mut missing = BTreeSet::new();
        for class in &unknown {
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
        known_sets::add(family, unknown.difference(&missing).copied());
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
}

fn all_chains() -> NfTablesMessage {
    NfTablesMessage::GetChain(ChainMessage {
        attributes: Vec::new(),
    })
}

/// Begins a batch that the kernel rejects unless the ruleset has this generation. 0 matches any.
fn begin(generation: Option<u32>) -> ControlMessage {
    let generation = generation.unwrap_or_default().to_be_bytes().to_vec();
    ControlMessage::Other {
        message_type: BATCH_BEGIN,
        attributes: vec![DefaultNla::new(BATCH_GENERATION, generation)],
    }
}

/// Returns true for a batch that was rejected because of its generation (`nfnetlink_rcv_batch`).
fn is_stale(error: &BatchError<NetfilterMessage>) -> bool {
    error.source.raw_os_error() == Some(ERESTART)
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
