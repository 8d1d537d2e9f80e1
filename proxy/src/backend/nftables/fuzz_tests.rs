//! See [`crate::fuzz_tests`]. The owner of a pod can create a table of our name with any content.

use super::element;
use super::kernel::nftables;
use super::read::{self, Found, FoundChain, FoundSet};
use super::{Content, before, translations, whole_table};
use crate::fuzz_tests::{NFTABLES, decode_netfilter, objects};
use crate::netlink::decode::guarded;
use crate::netlink::netfilter::about;
use crate::netlink::{parts, write};
use api::Family;
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, SetElementList, TableAttribute};
use rules::{Delta, KernelState};
use testbed::fuzz;

/// Takes in a message as [`Kernel`](super::Kernel) does.
fn take_in(found: &mut Found, bytes: &[u8]) -> Option<()> {
    let elements = guarded(|| element::decode(bytes));
    match nftables(decode_netfilter(bytes)?)? {
        NfTablesMessage::NewTable(table) => {
            found.comment = table
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    TableAttribute::UserData(bytes) => Some(bytes),
                    _ => None,
                });
        }
        NfTablesMessage::NewChain(chain) => found.chains.extend(FoundChain::parse(chain.attributes)),
        NfTablesMessage::NewSet(set) => found.sets.extend(FoundSet::parse(set.attributes)),
        NfTablesMessage::NewSetElement(list) => {
            let set = list.attributes.into_iter().find_map(|attribute| match attribute {
                SetElementList::Set(set) => Some(set),
                _ => None,
            });
            found.sets.get_mut(&set?)?.elements.extend(elements.ok()?);
        }
        NfTablesMessage::NewRule(rule) => {
            let (mut chain, mut expressions) = (None, Vec::new());
            for attribute in rule.attributes {
                match attribute {
                    RuleAttribute::Chain(name) => chain = Some(name),
                    RuleAttribute::Expressions(list) => expressions = list,
                    _ => {}
                }
            }
            found.chains.get_mut(&chain?)?.rules.push(expressions);
        }
        _ => {}
    }
    Some(())
}

fn read_all<'a>(messages: impl Iterator<Item = &'a [u8]>) -> KernelState {
    let (mut found, mut dump) = (Found::default(), KernelState::default());
    messages.for_each(|message| _ = take_in(&mut found, message));
    for family in Family::ALL {
        read::read(family, true, &found, &mut dump);
    }
    dump
}

#[test]
fn fuzz_messages_of_nftables() {
    fuzz::bytes(&fuzz::from_hex(NFTABLES), |message| {
        _ = read_all([message].into_iter());
    });
}

#[test]
fn fuzz_tables_of_nftables() {
    let wanted = objects::planned(&objects::corpus()).unwrap().rules;
    fuzz::bytes(&[fuzz::from_hex(NFTABLES).concat()], |datagram| {
        let dump = read_all(parts(datagram));
        let delta = Delta::from_kernel_state(&dump, &wanted);
        assert!(
            Family::ALL
                .iter()
                .all(|family| before(&delta, *family).ports.len() <= 1_000)
        );
    });
}

/// Every table that objects can lead to is written and read back.
#[test]
fn fuzz_rules_of_objects_of_tenants() {
    fuzz::objects(&objects::corpus(), |objects| {
        let Some(plan) = objects::planned(objects) else {
            return;
        };
        let delta = Delta::from_nothing(&plan.rules);
        for family in Family::ALL {
            let content = Content {
                vips: delta.rejected_meanwhile(family),
                sources: delta.sources_meanwhile(family),
                ports: translations(&delta, family),
            };
            for statement in whole_table(family, &content) {
                let mut datagram = Vec::new();
                write(
                    &mut datagram,
                    &about(family, statement.message),
                    statement.flags,
                    1,
                );
                assert!(parts(&datagram).eq([datagram.as_slice()]));
                assert!(
                    decode_netfilter(&datagram).is_some(),
                    "what is written cannot be read"
                );
            }
        }
    });
}
