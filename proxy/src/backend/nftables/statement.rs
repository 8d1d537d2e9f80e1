//! Netlink messages of changes of a table.
//!
//! Pure.

use super::element::{self, Element};
use super::encode::Expression;
use super::layout::Shape;
use api::names::NFT_TABLE;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetDescription, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

/// Message of a batch, and its flags in addition to "request" and "acknowledge".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) message: NfTablesMessage,
    pub(super) flags: u16,
}

/// Kind of a set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetKind {
    pub(super) value: Option<Shape>,
    /// Rules add elements, which expire this many seconds after their last use.
    pub(super) timeout: Option<u32>,
}

/// Base chain of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseChain {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) hook: InetHookNumber,
    pub(super) priority: i32,
}

impl BaseChain {
    pub(super) const fn new(
        name: &'static str,
        kind: &'static str,
        hook: InetHookNumber,
        priority: i32,
    ) -> Self {
        Self {
            name,
            kind,
            hook,
            priority,
        }
    }
}

/// Largest number of clients in an affinity map; further ones are balanced without affinity.
const MOST_CLIENTS: u32 = 65_536;

pub(super) fn new_table(comment: &str) -> Statement {
    create(NfTablesMessage::NewTable(TableMessage {
        attributes: vec![
            TableAttribute::Name(NFT_TABLE.to_owned()),
            TableAttribute::UserData(as_comment(comment)),
        ],
    }))
}

pub(super) fn delete_table() -> Statement {
    Statement {
        message: NfTablesMessage::DeleteTable(TableMessage {
            attributes: vec![TableAttribute::Name(NFT_TABLE.to_owned())],
        }),
        flags: 0,
    }
}

/// Creates a regular chain.
pub(super) fn new_chain(name: &str) -> Statement {
    create(NfTablesMessage::NewChain(ChainMessage {
        attributes: chain(name),
    }))
}

/// Creates a base chain with policy accept.
pub(super) fn new_base_chain(base: BaseChain) -> Statement {
    const ACCEPT: u32 = 1;
    let mut attributes = chain(base.name);
    attributes.extend([
        ChainAttribute::Type(base.kind.to_owned()),
        ChainAttribute::Policy(ACCEPT),
        ChainAttribute::Hook(vec![
            Hook::Number(base.hook.into()),
            Hook::Priority(base.priority.cast_unsigned()),
        ]),
    ]);
    create(NfTablesMessage::NewChain(ChainMessage { attributes }))
}

pub(super) fn delete_chain(name: &str) -> Statement {
    Statement {
        message: NfTablesMessage::DeleteChain(ChainMessage {
            attributes: chain(name),
        }),
        flags: 0,
    }
}

fn chain(name: &str) -> Vec<ChainAttribute> {
    vec![
        ChainAttribute::Table(NFT_TABLE.to_owned()),
        ChainAttribute::Name(name.to_owned()),
    ]
}

/// Appends a rule to `chain`.
pub(super) fn new_rule(chain: &str, expressions: Vec<Expression>) -> Statement {
    Statement {
        message: NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(NFT_TABLE.to_owned()),
                RuleAttribute::Chain(chain.to_owned()),
                RuleAttribute::Expressions(expressions),
            ],
        }),
        flags: NLM_F_CREATE | NLM_F_APPEND,
    }
}

/// Flushes a chain.
pub(super) fn empty_chain(name: &str) -> Statement {
    Statement {
        message: NfTablesMessage::DeleteRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(NFT_TABLE.to_owned()),
                RuleAttribute::Chain(name.to_owned()),
            ],
        }),
        flags: 0,
    }
}

/// Deletes a set or map with its elements.
pub(super) fn delete_set(name: &str) -> Statement {
    Statement {
        message: NfTablesMessage::DeleteSet(SetMessage {
            attributes: set(name),
        }),
        flags: 0,
    }
}

/// Creates a set or map. `id` is a number that no other set of the batch has.
pub(super) fn new_set(name: &str, id: u32, key: Shape, kind: SetKind) -> Statement {
    let mut flags = SetFlags::empty();
    let mut attributes = set(name);
    attributes.extend([
        SetAttribute::Id(id),
        SetAttribute::KeyType(key.kind),
        SetAttribute::KeyLen(key.length),
    ]);
    if let Some(value) = kind.value {
        flags |= SetFlags::Map;
        attributes.extend([
            SetAttribute::DataType(value.kind),
            SetAttribute::DataLen(value.length),
        ]);
    }
    if let Some(seconds) = kind.timeout {
        flags |= SetFlags::Timeout | SetFlags::Eval;
        attributes.extend([
            SetAttribute::Timeout(u64::from(seconds) * 1000),
            SetAttribute::Description(vec![SetDescription::Size(MOST_CLIENTS)]),
        ]);
    }
    attributes.push(SetAttribute::Flags(flags));
    create(NfTablesMessage::NewSet(SetMessage { attributes }))
}

fn set(name: &str) -> Vec<SetAttribute> {
    vec![
        SetAttribute::Table(NFT_TABLE.to_owned()),
        SetAttribute::Name(name.to_owned()),
    ]
}

pub(super) fn add_elements(set: &str, elements: &[Element]) -> Statement {
    create(NfTablesMessage::NewSetElement(SetElementMessage {
        attributes: list(set, elements),
    }))
}

/// Deletes elements by key.
pub(super) fn delete_elements(set: &str, elements: &[Element]) -> Statement {
    Statement {
        message: NfTablesMessage::DeleteSetElement(SetElementMessage {
            attributes: list(set, elements),
        }),
        flags: 0,
    }
}

fn list(set: &str, elements: &[Element]) -> Vec<SetElementList> {
    vec![
        SetElementList::Table(NFT_TABLE.to_owned()),
        SetElementList::Set(set.to_owned()),
        SetElementList::Other(element::encode(elements)),
    ]
}

fn create(message: NfTablesMessage) -> Statement {
    Statement {
        message,
        flags: NLM_F_CREATE,
    }
}

/// Encodes a comment as nft does: type 0, length, text with a NUL.
pub(super) fn as_comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).expect("our comments are short");
    [&[0, length], text.as_bytes(), &[0]].concat()
}
