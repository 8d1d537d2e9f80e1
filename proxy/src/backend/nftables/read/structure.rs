//! Drift of the structure of the table: everything except elements.
//!
//! Pure.

use super::found::{Found, FoundChain, FoundSet};
use crate::backend::nftables::encode::Expression;
use crate::backend::nftables::layout::{AFFINITY, Class, DISPATCH};
use crate::backend::nftables::session_affinity::MEMORY;
use crate::backend::nftables::skeleton;
use crate::backend::nftables::statement::as_comment;
use api::Family;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ExpressionAttribute, Expressions, Hook, ListAttribute, NfTablesMessage, RuleAttribute,
    SetAttribute,
};
use std::collections::{BTreeMap, BTreeSet};

/// Upper bound of the number of rules of our table with these classes: a class has three at most.
pub(in crate::backend::nftables) fn most_rules(found: &Found) -> usize {
    let classes = found.sets.keys().filter(|set| Class::of_set(set).is_some());
    64 + 4 * classes.count()
}

/// Returns the drift of everything except elements.
pub(super) fn structure(family: Family, is_pod: bool, found: &Found) -> BTreeSet<String> {
    let mut damage = BTreeSet::new();
    if found.comment.as_deref() != Some(&*as_comment(&skeleton::comment())) {
        damage.insert("the table has another layout".to_owned());
    }
    let wanted = Wanted::of(family, is_pod, found);
    for (name, set) in &wanted.sets {
        let alike = found.sets.get(name);
        if !alike.is_some_and(|found| is_like(&set.attributes, &found.attributes)) {
            damage.insert(format!("set {name} is missing or another"));
        }
    }
    for (name, chain) in &wanted.chains {
        let alike = found.chains.get(name);
        if !alike.is_some_and(|found| is_hooked_like(chain, found)) {
            damage.insert(format!("chain {name} is missing or another"));
        }
    }
    let foreign_sets = found.sets.keys().filter(|set| !wanted.sets.contains_key(*set));
    damage.extend(foreign_sets.map(|set| format!("set {set} is not ours")));
    for (name, chain) in &found.chains {
        match wanted.chains.get(name) {
            None => _ = damage.insert(format!("chain {name} is not ours")),
            // The rules of a table with foreign chains were not read.
            Some(wanted) if found.foreign.is_empty() && !are_the_rules(name, &wanted.rules, &chain.rules) => {
                damage.insert(format!("chain {name} has other rules"));
            }
            Some(_) => {}
        }
    }
    damage
}

/// Sets and chains, with rules, that the table has to have for the classes that it has.
#[derive(Default)]
struct Wanted {
    sets: BTreeMap<String, FoundSet>,
    chains: BTreeMap<String, FoundChain>,
}

impl Wanted {
    fn of(family: Family, is_pod: bool, found: &Found) -> Self {
        let of_classes = found
            .classes()
            .flat_map(|class| skeleton::class(family, class, 0));
        let statements = skeleton::fresh_table(family, is_pod).into_iter();
        let mut wanted = Self::default();
        for statement in statements.chain(of_classes) {
            wanted.add(statement.message);
        }
        wanted
    }

    fn add(&mut self, message: NfTablesMessage) {
        match message {
            NfTablesMessage::NewSet(set) => self.sets.extend(FoundSet::parse(set.attributes)),
            NfTablesMessage::NewChain(chain) => {
                if let Some((name, chain)) = FoundChain::parse(chain.attributes) {
                    self.chains.entry(name).or_default().attributes = chain.attributes;
                }
            }
            NfTablesMessage::NewRule(rule) => {
                let (mut chain, mut expressions) = (String::new(), Vec::new());
                for attribute in rule.attributes {
                    match attribute {
                        RuleAttribute::Chain(name) => chain = name,
                        RuleAttribute::Expressions(list) => expressions = list,
                        _ => {}
                    }
                }
                self.chains.entry(chain).or_default().rules.push(expressions);
            }
            _ => {}
        }
    }
}

/// Compares types and lengths; the kernel adds attributes of its own.
fn is_like(wanted: &[SetAttribute], found: &[SetAttribute]) -> bool {
    wanted.iter().all(|attribute| match attribute {
        // The id exists only while the set is created; newer kernels add parts to the description.
        SetAttribute::Id(_) | SetAttribute::Description(_) => true,
        // Not listed when there are none.
        SetAttribute::Flags(flags) if flags.is_empty() => true,
        _ => found.contains(attribute),
    })
}

fn is_hooked_like(wanted: &FoundChain, found: &FoundChain) -> bool {
    wanted.attributes.iter().all(|attribute| match attribute {
        ChainAttribute::Hook(wanted) => found.attributes.iter().any(|attribute| match attribute {
            ChainAttribute::Hook(found) => wanted.iter().all(|part| hooks_alike(part, found)),
            _ => false,
        }),
        _ => found.attributes.contains(attribute),
    })
}

fn hooks_alike(wanted: &Hook, found: &[Hook]) -> bool {
    found.iter().any(|found| match (wanted, found) {
        (Hook::Number(wanted), Hook::Number(found)) => u32::from(*wanted) == u32::from(*found),
        (wanted, found) => wanted == found,
    })
}

/// Classes add rules in the order in which they occur, so the order of these rules does not matter.
fn are_the_rules(chain: &str, wanted: &[Vec<Expression>], found: &[Vec<Expression>]) -> bool {
    let any_order =
        chain == DISPATCH || chain == AFFINITY || MEMORY.iter().any(|memory| memory.name == chain);
    wanted.len() == found.len()
        && if any_order {
            wanted
                .iter()
                .all(|wanted| found.iter().any(|found| is_the_rule(wanted, found)))
        } else {
            wanted
                .iter()
                .zip(found)
                .all(|(wanted, found)| is_the_rule(wanted, found))
        }
}

fn is_the_rule(wanted: &[Expression], found: &[Expression]) -> bool {
    wanted.len() == found.len()
        && wanted
            .iter()
            .zip(found)
            .all(|(wanted, found)| is_the_expression(wanted, found))
}

/// Every written attribute is listed; the kernel adds some with their default.
fn is_the_expression(wanted: &Expression, found: &Expression) -> bool {
    let (ListAttribute::Element(wanted), ListAttribute::Element(found)) = (wanted, found) else {
        return false;
    };
    wanted.iter().all(|attribute| match attribute {
        ExpressionAttribute::Data(wanted) => found.iter().any(|attribute| match attribute {
            ExpressionAttribute::Data(found) => has_all(wanted, found),
            _ => false,
        }),
        attribute => found.contains(attribute),
    })
}

fn has_all(wanted: &Expressions, found: &Expressions) -> bool {
    fn within<T: PartialEq>(wanted: &[T], found: &[T]) -> bool {
        wanted.iter().all(|attribute| found.contains(attribute))
    }
    match (wanted, found) {
        (Expressions::Bitwise(wanted), Expressions::Bitwise(found)) => within(wanted, found),
        (Expressions::Cmp(wanted), Expressions::Cmp(found)) => within(wanted, found),
        (Expressions::Immediate(wanted), Expressions::Immediate(found)) => within(wanted, found),
        (Expressions::Lookup(wanted), Expressions::Lookup(found)) => within(wanted, found),
        (Expressions::Meta(wanted), Expressions::Meta(found)) => within(wanted, found),
        (Expressions::Payload(wanted), Expressions::Payload(found)) => within(wanted, found),
        (
            Expressions::Other {
                attributes: wanted, ..
            },
            Expressions::Other {
                attributes: found, ..
            },
        ) => within(wanted, found),
        _ => false,
    }
}
