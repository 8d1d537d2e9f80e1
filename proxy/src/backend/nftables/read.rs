//! Parser of the table.
//!
//! Pure. The expected content follows from the code that writes it; any other content is drift, and the table is rebuilt.

mod affinity;
mod found;
mod parts;
mod structure;

pub(super) use affinity::{affinities, has_to_be_forgotten, is_with_a_member};
pub(super) use found::{Foreign, Found, FoundChain, FoundSet};
pub(super) use structure::most_rules;

use super::element::Element;
use super::layout::{Class, ENDPOINTS, SOURCES, VIPS, clients};
use affinity::{Affinities, Sticky};
use api::Family;
use parts::Parts;
use rules::{KernelState, Places, Port, Translated};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use structure::structure;

/// Endpoints of each port, with their index.
type Slots = BTreeMap<(IpAddr, Port), Vec<(u32, SocketAddr)>>;

/// Number of endpoints of each port, by its class.
type Counts = BTreeMap<(IpAddr, Port), u32>;

/// Adds the content of a family's table, and its drift, to `dump`.
pub(super) fn read(family: Family, is_pod: bool, found: &Found, dump: &mut KernelState) {
    let unread = found.unread.iter().cloned().chain(found.foreign.describe());
    dump.unread.extend(unread.map(|what| format!("{family}: {what}")));
    if found.unread.is_some() {
        return;
    }
    let mut damage = structure(family, is_pod, found);
    let vips = found.elements(VIPS).iter();
    dump.rejected
        .extend(vips.filter_map(|element| Parts::new(family, &element.key).address()));
    // By the same set.
    dump.rejected_udp.extend(&dump.rejected);
    for element in found.elements(SOURCES) {
        match source(family, element) {
            Some((vip, source)) => _ = dump.sources.insert(vip, source),
            None => _ = damage.insert(format!("map {SOURCES} holds something else than addresses")),
        }
    }
    let slots = slots(family, found, &mut damage);
    let affinities = affinities(family, found);
    let counts = counts(family, found, &affinities, &mut damage);
    if slots.keys().ne(counts.keys()) || affinities.keys().any(|port| !counts.contains_key(port)) {
        damage.insert("ports and endpoints do not match".to_owned());
    }
    for (port, slots) in slots {
        let (translated, is_as_written) = translated(slots, counts.get(&port), affinities.get(&port));
        if !is_as_written {
            damage.insert(format!("the endpoints of {} are not as written", port.0));
        }
        dump.translated.insert(port, translated);
    }
    dump.damage
        .extend(damage.into_iter().map(|what| format!("{family}: {what}")));
}

fn slots(family: Family, found: &Found, damage: &mut BTreeSet<String>) -> Slots {
    let mut slots = Slots::new();
    for element in found.elements(ENDPOINTS) {
        match slot(family, element) {
            Some((port, index, endpoint)) => slots.entry(port).or_default().push((index, endpoint)),
            None => _ = damage.insert(format!("map {ENDPOINTS} holds something else than endpoints")),
        }
    }
    slots
}

/// Reads the ports of each class.
fn counts(family: Family, found: &Found, affinities: &Affinities, damage: &mut BTreeSet<String>) -> Counts {
    let mut counts = Counts::new();
    for class in found.classes() {
        for element in found.elements(&class.set()) {
            let mut parts = Parts::new(family, &element.key);
            let is_as_written = parts.service().is_some_and(|port| match class {
                Class::Count(count) => counts.insert(port, count).is_none(),
                Class::Affinity(seconds) => {
                    let sticky = affinities.get(&port);
                    sticky.is_some_and(|sticky| sticky.seconds == seconds) && parts.endpoint().is_some()
                }
            });
            if !is_as_written {
                damage.insert(format!("set {} holds a port that is elsewhere", class.set()));
            }
        }
        damage.extend(outdated_clients(class, found));
    }
    counts
}

/// Returns the damage of a map that remembers clients of removed endpoints.
fn outdated_clients(class: Class, found: &Found) -> Option<String> {
    let Class::Affinity(seconds) = class else {
        return None;
    };
    let map = clients(seconds);
    let is_outdated = found.sets.get(&map).is_some_and(|found| found.is_outdated);
    is_outdated.then(|| format!("map {map} remembers endpoints that are gone"))
}

/// Returns the translation of a port, and true if its sets agree.
fn translated(
    mut slots: Vec<(u32, SocketAddr)>,
    count: Option<&u32>,
    sticky: Option<&Sticky>,
) -> (Translated, bool) {
    slots.sort_unstable();
    let by_place = || slots.iter().map(|(_, endpoint)| *endpoint);
    // Any order is valid; a gap, or an endpoint in two places, is drift.
    let places = Places::of(by_place().collect());
    let is_one_each = places.is_some();
    let endpoints = places.unwrap_or_else(|| by_place().collect());
    let end = slots.len().try_into().unwrap_or(u32::MAX);
    let is_as_written = is_one_each
        && slots.iter().map(|(index, _)| *index).eq(0..end)
        && count.is_none_or(|count| *count as usize == endpoints.len())
        && sticky.is_none_or(|sticky| sticky.members == endpoints.to_set());
    let affinity = sticky.map(|sticky| Duration::from_secs(sticky.seconds.into()));
    (Translated { endpoints, affinity }, is_as_written)
}

fn slot(family: Family, element: &Element) -> Option<((IpAddr, Port), u32, SocketAddr)> {
    let mut key = Parts::new(family, &element.key);
    let port = key.service()?;
    let index = key.index()?;
    let endpoint = Parts::new(family, element.value.as_ref()?).endpoint()?;
    Some((port, index, endpoint))
}

fn source(family: Family, element: &Element) -> Option<(IpAddr, IpAddr)> {
    let vip = Parts::new(family, &element.key).address()?;
    let source = Parts::new(family, element.value.as_ref()?).address()?;
    Some((vip, source))
}
