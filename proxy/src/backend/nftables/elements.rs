//! Conversion of changes of ports to changes of elements.
//!
//! Pure. A change is made in two transactions, so that a flow that begins between the evaluation of two rules is translated: first
//! all new elements are added, then the old ones are removed. The index of an endpoint is
//! its [place](rules::Places), so that one of many changes few elements.

use super::element::Element;
use super::layout::{Bytes, Class, ENDPOINTS, SOURCES, VIPS};
use super::statement::{Statement, add_elements, delete_elements};
use rules::{PlaceChange, Places, Port, PortChange, SourceChange, Translation};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Largest number of elements in one message. An attribute is at most 64 KiB long, and an element here at most 92 bytes.
const PER_MESSAGE: usize = 500;

/// Change of the elements of one family's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Required classes.
    pub(super) classes: BTreeSet<Class>,
    /// First transaction.
    pub(super) first: Edit,
    /// Second transaction.
    pub(super) second: Edit,
    /// Clients that may have to change their endpoint, after the second transaction.
    pub(super) forget: BTreeMap<(IpAddr, Port), Forget>,
}

/// Entries of an affinity map to delete, for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forget {
    /// Affinity of the map.
    pub(super) seconds: u32,
    /// Endpoints whose clients may stay.
    pub(super) keep: Places,
}

/// Elements to delete and then to add, by set. An element in both gets another value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) delete: BTreeMap<String, Vec<Element>>,
    pub(super) add: BTreeMap<String, Vec<Element>>,
}

impl Edit {
    /// Changes the VIPs whose untranslated packets are rejected.
    pub(super) fn of_vips(
        add: impl IntoIterator<Item = IpAddr>,
        delete: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let mut edit = Self::default();
        let element = |vip| Element {
            key: Bytes::default().address(vip).build(),
            value: None,
        };
        for vip in add {
            edit.add(VIPS, element(vip));
        }
        for vip in delete {
            edit.delete(VIPS, element(vip));
        }
        edit
    }

    /// Changes the source addresses of flows to these VIPs.
    pub(super) fn of_sources(changes: impl IntoIterator<Item = (IpAddr, SourceChange)>) -> Self {
        let mut edit = Self::default();
        let element = |vip, source| Element {
            key: Bytes::default().address(vip).build(),
            value: Some(Bytes::default().address(source).build()),
        };
        for (vip, SourceChange { old, new }) in changes {
            if let Some(old) = old {
                edit.delete(SOURCES, element(vip, old));
            }
            if let Some(new) = new {
                edit.add(SOURCES, element(vip, new));
            }
        }
        edit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }

    /// Returns the messages of the change.
    pub(super) fn statements(&self) -> impl Iterator<Item = Statement> {
        let each = |edits, statement: fn(&str, &[Element]) -> Statement| {
            let edits: &BTreeMap<String, Vec<Element>> = edits;
            edits.iter().flat_map(move |(set, elements)| {
                elements
                    .chunks(PER_MESSAGE)
                    .map(move |elements| statement(set, elements))
            })
        };
        each(&self.delete, delete_elements).chain(each(&self.add, add_elements))
    }

    fn add(&mut self, set: &str, element: Element) {
        push(&mut self.add, set, element);
    }

    fn delete(&mut self, set: &str, element: Element) {
        push(&mut self.delete, set, element);
    }
}

fn push(edits: &mut BTreeMap<String, Vec<Element>>, set: &str, element: Element) {
    if let Some(elements) = edits.get_mut(set) {
        elements.push(element);
    } else {
        edits.insert(set.to_owned(), vec![element]);
    }
}

impl Change {
    /// Returns the change for the ports of a family.
    pub(super) fn of<'a>(ports: impl IntoIterator<Item = ((IpAddr, Port), PortChange<'a>)>) -> Self {
        let mut change = Self::default();
        for ((vip, port), PortChange { old, new }) in ports {
            change.endpoints(vip, port, old, new);
            change.classes(vip, port, old, new);
            change.members(vip, port, old, new);
            change.clients(vip, port, old, new);
        }
        change
    }

    /// Returns all elements that translate these ports.
    pub(super) fn whole<'a>(ports: impl IntoIterator<Item = ((IpAddr, Port), Translation<'a>)>) -> Self {
        let ports = ports.into_iter();
        Self::of(ports.map(|(port, new)| {
            (
                port,
                PortChange {
                    old: None,
                    new: Some(new),
                },
            )
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.second.is_empty()
    }

    fn endpoints(
        &mut self,
        vip: IpAddr,
        port: Port,
        old: Option<Translation<'_>>,
        new: Option<Translation<'_>>,
    ) {
        let none = Places::default();
        let old = old.map(|old| old.endpoints);
        let new = new.map_or(&none, |new| new.endpoints);
        for PlaceChange { place, old, new } in new.changes_from(old) {
            let slot = |endpoint| slot(vip, port, place, endpoint);
            match (old, new) {
                (old, Some(new)) => {
                    if let Some(old) = old {
                        self.first.delete(ENDPOINTS, slot(old));
                    }
                    self.first.add(ENDPOINTS, slot(new));
                }
                (Some(old), None) => self.second.delete(ENDPOINTS, slot(old)),
                (None, None) => {}
            }
        }
    }

    fn classes(
        &mut self,
        vip: IpAddr,
        port: Port,
        old: Option<Translation<'_>>,
        new: Option<Translation<'_>>,
    ) {
        let (old, new) = (old.map(count), new.map(count));
        if old == new {
            return;
        }
        let element = || Element {
            key: service(vip, port).build(),
            value: None,
        };
        if let Some(class) = new {
            self.classes.insert(class);
            self.first.add(&class.set(), element());
        }
        if let Some(class) = old {
            self.second.delete(&class.set(), element());
        }
    }

    /// Elements of the endpoints that affinity may remember.
    fn members(
        &mut self,
        vip: IpAddr,
        port: Port,
        old: Option<Translation<'_>>,
        new: Option<Translation<'_>>,
    ) {
        let element = |endpoint: SocketAddr| Element {
            key: service(vip, port)
                .address(endpoint.ip())
                .port(endpoint.port())
                .build(),
            value: None,
        };
        if let Some((class, endpoints)) = members(new) {
            self.classes.insert(class);
            for endpoint in endpoints.not_in(of_class(class, old)) {
                self.first.add(&class.set(), element(endpoint));
            }
        }
        if let Some((class, endpoints)) = members(old) {
            for endpoint in endpoints.not_in(of_class(class, new)) {
                self.second.delete(&class.set(), element(endpoint));
            }
        }
    }

    fn clients(
        &mut self,
        vip: IpAddr,
        port: Port,
        old: Option<Translation<'_>>,
        new: Option<Translation<'_>>,
    ) {
        let Some((old, seconds)) = old.and_then(|old| Some((old, seconds(old)?))) else {
            return;
        };
        let none = Places::default();
        let keep = match new {
            Some(new) if new.affinity == old.affinity => new.endpoints,
            _ => &none,
        };
        if old.endpoints.not_in(Some(keep)).next().is_some() {
            let keep = keep.clone();
            self.forget.insert((vip, port), Forget { seconds, keep });
        }
    }
}

/// Returns the class of a port.
pub(super) fn classes(translation: Translation<'_>) -> impl Iterator<Item = Class> {
    let affinity = seconds(translation).map(Class::Affinity);
    std::iter::once(count(translation)).chain(affinity)
}

fn count(translation: Translation<'_>) -> Class {
    Class::Count(u32::try_from(translation.endpoints.len()).expect("endpoints are fewer than addresses"))
}

/// Returns the affinity class of a port.
fn members(translation: Option<Translation<'_>>) -> Option<(Class, &Places)> {
    let translation = translation?;
    Some((Class::Affinity(seconds(translation)?), translation.endpoints))
}

/// Returns the translation if its affinity is in this class.
fn of_class(class: Class, translation: Option<Translation<'_>>) -> Option<&Places> {
    let (of, endpoints) = members(translation)?;
    (of == class).then_some(endpoints)
}

/// Kubernetes allows one second to a day.
fn seconds(translation: Translation<'_>) -> Option<u32> {
    let seconds = translation.affinity?.as_secs().max(1);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn service(vip: IpAddr, port: Port) -> Bytes {
    Bytes::default()
        .address(vip)
        .protocol(port.protocol)
        .port(port.number)
}

fn slot(vip: IpAddr, port: Port, index: u32, endpoint: SocketAddr) -> Element {
    Element {
        key: service(vip, port).index(index).build(),
        value: Some(
            Bytes::default()
                .address(endpoint.ip())
                .port(endpoint.port())
                .build(),
        ),
    }
}

#[cfg(test)]
mod tests;
