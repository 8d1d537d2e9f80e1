//! Table as the kernel lists it.
//!
//! Pure.

use crate::backend::nftables::element::Element;
use crate::backend::nftables::encode::Expression;
use crate::backend::nftables::layout::Class;
use api::names::NFT_TABLE;
use netlink_packet_netfilter::nftables::{ChainAttribute, SetAttribute};
use std::collections::{BTreeMap, BTreeSet};

/// Table as the kernel lists it.
#[derive(Debug, Default)]
pub(in crate::backend::nftables) struct Found {
    pub(in crate::backend::nftables) comment: Option<Vec<u8>>,
    pub(in crate::backend::nftables) chains: BTreeMap<String, FoundChain>,
    pub(in crate::backend::nftables) sets: BTreeMap<String, FoundSet>,
    /// Foreign sets and chains. Their content was not read.
    pub(in crate::backend::nftables) foreign: Foreign,
    /// Reason why only the comment was read.
    pub(in crate::backend::nftables) unread: Option<String>,
}

impl Found {
    /// Returns the elements of a set or map; none if it does not exist.
    pub(super) fn elements(&self, set: &str) -> &[Element] {
        let set = self.sets.get(set);
        set.map(|set| set.elements.as_slice()).unwrap_or_default()
    }

    /// Returns the classes that have a set.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        self.sets.keys().filter_map(|set| Class::of_set(set))
    }
}

/// Foreign sets and chains in our table.
#[derive(Debug, Default)]
pub(in crate::backend::nftables) struct Foreign {
    count: usize,
    /// First names.
    named: BTreeSet<String>,
}

impl Foreign {
    /// Largest number of names.
    const NAMED: usize = 3;

    /// Adds a "set" or a "chain".
    pub(in crate::backend::nftables) fn add(&mut self, kind: &str, name: &str) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.insert(format!("{kind} {name} is not ours"));
        }
    }

    pub(in crate::backend::nftables) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn describe(&self) -> impl Iterator<Item = String> {
        let more = self.count.saturating_sub(self.named.len());
        let more = (more > 0).then(|| format!("{more} more sets and chains are not ours"));
        self.named.iter().cloned().chain(more)
    }
}

/// Chain of the table.
#[derive(Debug, Default)]
pub(in crate::backend::nftables) struct FoundChain {
    pub(super) attributes: Vec<ChainAttribute>,
    pub(in crate::backend::nftables) rules: Vec<Vec<Expression>>,
}

impl FoundChain {
    /// Parses a chain of our table, without its rules.
    pub(in crate::backend::nftables) fn parse(attributes: Vec<ChainAttribute>) -> Option<(String, Self)> {
        let ours = attributes.contains(&ChainAttribute::Table(NFT_TABLE.to_owned()));
        let name = attributes.iter().find_map(|attribute| match attribute {
            ChainAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        let name = name.filter(|_| ours)?;
        Some((
            name,
            Self {
                attributes,
                rules: Vec::new(),
            },
        ))
    }
}

/// Set or map of the table.
#[derive(Debug, Default)]
pub(in crate::backend::nftables) struct FoundSet {
    pub(super) attributes: Vec<SetAttribute>,
    /// Elements; those of maps from clients to endpoints are not kept.
    pub(in crate::backend::nftables) elements: Vec<Element>,
    /// For such a map: it maps a client to a removed endpoint. A proxy left the entry that ended before it could
    /// [forget](super::has_to_be_forgotten) the client.
    pub(in crate::backend::nftables) is_outdated: bool,
}

impl FoundSet {
    /// Parses a named set, without its elements.
    pub(in crate::backend::nftables) fn parse(attributes: Vec<SetAttribute>) -> Option<(String, Self)> {
        let name = attributes.iter().find_map(|attribute| match attribute {
            SetAttribute::Name(name) => Some(name.clone()),
            _ => None,
        });
        Some((
            name?,
            Self {
                attributes,
                elements: Vec::new(),
                is_outdated: false,
            },
        ))
    }
}
