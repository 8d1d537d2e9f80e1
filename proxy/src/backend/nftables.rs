//! nftables backend: one table per family, written through netlink by this process.
//!
//! Writes: tables `ip multus-proxy` and `ip6 multus-proxy`, nothing else. `layout` shows their content.
//!
//! ```text
//! Delta ─► elements [pure] ─► skeleton, statement [pure] ─► kernel (netlink)
//! KernelState  ◄─ read [pure] ◄────────────────────────────────────┘
//! ```

mod element;
mod elements;
mod encode;
#[cfg(test)]
mod fuzz_tests;
mod kernel;
pub(crate) mod known_sets;
mod layout;
mod read;
mod session_affinity;
mod skeleton;
mod statement;

pub use crate::netlink::generation::{expect, expected, generation};

use crate::backend::{Backend, Error, families};
use crate::netns::is_home;
use api::Family;
use elements::{Change, Edit};
use kernel::Kernel;
use layout::Class;
use rules::{Base, Delta, KernelState, Port, PortChange, SourceChange, Translation};
use statement::Statement;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// nftables through netlink.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nftables;

/// Content of a family's table.
struct Content<'a> {
    /// VIPs that are rejected unless translated.
    vips: BTreeSet<IpAddr>,
    /// Sources by VIP.
    sources: BTreeMap<IpAddr, IpAddr>,
    ports: BTreeMap<(IpAddr, Port), Translation<'a>>,
}

impl Nftables {
    /// Writes the rules of a Service with session affinity, in a scratch namespace.
    pub(super) fn probe() -> Result<(), Error> {
        let trial = BTreeSet::from([Class::Count(1), Class::Count(2), Class::Affinity(60)]);
        let mut kernel = Kernel::new();
        for family in families() {
            let table = skeleton::fresh_table(family, !is_home()).into_iter();
            kernel.change(family, table.chain(classes(family, &trial)))?;
        }
        Ok(())
    }
}

/// Returns true when a table of the calling thread's namespace has a chain whose name begins with `prefix`.
pub(super) fn has_chain(prefix: &str) -> Result<bool, Error> {
    let mut kernel = Kernel::new();
    for family in Family::ALL {
        if kernel.has_chain(family, prefix)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Backend for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn verifies_generation(&self) -> bool {
        true
    }

    fn is_present(&self) -> Result<bool, Error> {
        let mut kernel = Kernel::new();
        Ok(kernel.has_table(Family::V4)? || kernel.has_table(Family::V6)?)
    }

    fn dump(&self) -> Result<KernelState, Error> {
        let (mut kernel, mut dump) = (Kernel::new(), KernelState::default());
        for family in Family::ALL {
            if let Some(found) = kernel.read(family)? {
                read::read(family, !is_home(), &found, &mut dump);
            }
        }
        Ok(dump)
    }

    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        let mut kernel = Kernel::new();
        for family in delta.families() {
            let vips = delta.reject.iter().copied();
            let edit = Edit::of_vips(vips.filter(|vip| Family::of(*vip) == family), []);
            // Before any flow is translated or routed.
            let sources = delta.sources(family).filter(|(_, change)| change.new.is_some());
            let sources = Edit::of_sources(sources);
            let is_idle = edit.is_empty() && sources.is_empty();
            let edits = || edit.statements().chain(sources.statements());
            let exists = match delta.base(family) {
                _ if is_idle && !delta.is_rebuild() => continue,
                Base::Absent => false,
                Base::Present if !delta.is_rebuild() => true,
                Base::Unknown | Base::Present => kernel.has_table(family)?,
            };
            if delta.is_rebuild() {
                let before = before(delta, family);
                if exists || !before.vips.is_empty() {
                    known_sets::forget(family);
                    kernel.change(family, whole_table(family, &before))?;
                }
            } else if exists {
                kernel.change(family, edits())?;
            } else {
                let table = skeleton::fresh_table(family, !is_home());
                kernel.change(family, table.into_iter().chain(edits()))?;
            }
        }
        Ok(())
    }

    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        let changes = Family::ALL.map(|family| {
            let of_family = |((vip, _), _): &(&(IpAddr, Port), &PortChange<'_>)| Family::of(*vip) == family;
            let ports = delta.ports.iter().filter(of_family);
            (family, Change::of(ports.map(|(port, change)| (*port, *change))))
        });
        if changes.iter().all(|(_, change)| change.is_empty()) {
            return Ok(());
        }
        let mut kernel = Kernel::new();
        for (family, of_family) in changes {
            if of_family.is_empty() {
                continue;
            }
            let missing = kernel.missing(family, &of_family.classes)?;
            let first = classes(family, &missing).chain(of_family.first.statements());
            kernel.change(family, first)?;
            known_sets::add(family, missing.iter().copied());
            kernel.change(family, of_family.second.statements())?;
            kernel.forget(family, &of_family.forget)?;
            if !missing.is_empty() {
                collect(&mut kernel, family, delta)?;
            }
        }
        Ok(())
    }

    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        let mut kernel = Kernel::new();
        for family in delta.families() {
            let vips = delta.unreject.iter().copied();
            let edit = Edit::of_vips([], vips.filter(|vip| Family::of(*vip) == family));
            let sources = delta.sources(family).filter(|(_, change)| change.new.is_none());
            let sources = Edit::of_sources(sources);
            kernel.change(family, edit.statements().chain(sources.statements()))?;
        }
        Ok(())
    }

    fn remove_translation(&self) -> Result<(), Error> {
        let mut kernel = Kernel::new();
        for family in Family::ALL {
            let chains = skeleton::TRANSLATION.into_iter().chain([skeleton::SOURCE]);
            let chains = chains.chain(session_affinity::MEMORY);
            let there = kernel.chains_of(family, chains.clone().map(|chain| chain.name))?;
            let chains = chains.filter(|chain| there.contains(chain.name));
            kernel.change(family, chains.map(|chain| statement::delete_chain(chain.name)))?;
        }
        Ok(())
    }

    fn remove_rejection(&self) -> Result<(), Error> {
        let mut kernel = Kernel::new();
        for family in Family::ALL {
            if kernel.has_table(family)? {
                kernel.change(family, [statement::delete_table()])?;
            }
        }
        Ok(())
    }
}

/// Unused classes that are kept in addition to the number of used ones. Numbers of endpoints recur, and creating a class costs more than
/// changing an element.
const SPARE: usize = 32;

/// Removes unused classes once there are many: otherwise a user who may write Services could fill kernel memory with one affinity after
/// the other.
fn collect(kernel: &mut Kernel, family: Family, delta: &Delta<'_>) -> Result<(), Error> {
    let there = kernel.classes(family)?;
    if there.len() <= SPARE {
        return Ok(());
    }
    let translations = translations(delta, family).into_values();
    let used: BTreeSet<Class> = translations.flat_map(elements::classes).collect();
    if there.len() > 2 * used.len() + SPARE {
        known_sets::forget(family);
        kernel.change(family, skeleton::collect(family, &there, &used))?;
    }
    Ok(())
}

/// Returns a table with `content`, which replaces any table of its name.
fn whole_table<'a>(family: Family, content: &Content<'a>) -> impl Iterator<Item = Statement> + use<'a> {
    let change = Change::whole(
        content
            .ports
            .iter()
            .map(|(port, translation)| (*port, *translation)),
    );
    let vips = Edit::of_vips(content.vips.iter().copied(), []);
    let mut statements = skeleton::fresh_table(family, !is_home());
    statements.extend(classes(family, &change.classes));
    statements.extend(vips.statements());
    let sources = content.sources.iter().map(|(vip, source)| {
        let (old, new) = (None, Some(*source));
        (*vip, SourceChange { old, new })
    });
    statements.extend(Edit::of_sources(sources).statements());
    statements.extend(change.first.statements());
    statements.into_iter()
}

fn classes(family: Family, classes: &BTreeSet<Class>) -> impl Iterator<Item = Statement> + use<> {
    // 1 to 3 are the sets that every table has; a class has two at most.
    let numbered = classes.clone().into_iter().zip((4..).step_by(2));
    numbered.flat_map(move |(class, id)| skeleton::class(family, class, id))
}

/// Returns the content between `reject` and `translate`: new VIPs have no route yet and must not be translated.
fn before<'a>(delta: &Delta<'a>, family: Family) -> Content<'a> {
    let mut ports = translations(delta, family);
    for (port, PortChange { old, .. }) in delta
        .ports
        .iter()
        .filter(|((vip, _), _)| Family::of(*vip) == family)
    {
        match old {
            Some(old) => ports.insert(*port, *old),
            None => ports.remove(port),
        };
    }
    Content {
        vips: delta.rejected_meanwhile(family),
        sources: delta.sources_meanwhile(family),
        ports,
    }
}

fn translations<'a>(delta: &Delta<'a>, family: Family) -> BTreeMap<(IpAddr, Port), Translation<'a>> {
    let vips = delta.wanted().vips(family).into_iter();
    let ports = vips.flat_map(|(vip, (rules, source))| {
        let ports = rules.ports.iter();
        ports.filter_map(move |(port, rules)| Some(((vip, *port), rules.translation(source)?)))
    });
    ports.collect()
}
