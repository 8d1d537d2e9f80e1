//! Index of manual slices, and the Services for which they are listed.
//!
//! Pure. A list takes effect when it is complete: until then nothing is planned for a Service whose slices it is the first to name, or
//! its copies would be deleted and created again at every start.

use super::{Event, Keyed, Store};
use crate::manual::{ManualSlice, Scope, ScopedServices};
use crate::objects::service_key;
use api::ObjectName;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

impl Keyed for ManualSlice {
    fn key(&self) -> ObjectName {
        ObjectName::of(&self.slice)
    }
}

/// Slices that a Service's author wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthorSlices {
    /// Not listed yet.
    Unknown,
    /// There are too many such Services to watch this one's.
    NotWatched,
    /// All of them, in the order of names.
    Slices(Vec<Arc<ManualSlice>>),
}

#[derive(Debug, Default)]
pub struct Manual {
    /// Services without any selector.
    pub(super) services: ScopedServices,
    /// Scope of the list in progress.
    announced: Scope,
    /// Scope of the last complete list.
    listed: Scope,
    store: Store<ManualSlice>,
}

impl Manual {
    /// The Services whose slices are to be watched.
    pub fn scope(&self) -> &Scope {
        self.services.scope()
    }

    /// Returns the author's slices of a Service without any selector.
    pub fn of(&self, service: &ObjectName) -> AuthorSlices {
        if !self.scope().contains(service) {
            return AuthorSlices::NotWatched;
        }
        if !self.listed.contains(service) {
            return AuthorSlices::Unknown;
        }
        let all = self.store.in_namespace(&service.namespace);
        let own = all.filter(|written| service_key(&written.slice).as_ref() == Some(service));
        AuthorSlices::Slices(own.cloned().collect())
    }

    /// Services whose manual slices contain one of these addresses.
    pub fn with_address(&self, addresses: &BTreeSet<IpAddr>) -> Vec<ObjectName> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let names_one = |written: &&Arc<ManualSlice>| {
            let endpoints = written.slice.endpoints.iter();
            let mut first = endpoints.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
            first.any(|address| addresses.contains(&address))
        };
        let naming = self.store.iter().filter(names_one);
        naming.filter_map(|written| service_key(&written.slice)).collect()
    }

    /// Sets the scope of the next list.
    pub(super) fn announce(&mut self, scope: Scope) {
        self.announced = scope;
    }

    /// Applies a watch event and returns the Services that it affects.
    pub(super) fn update(&mut self, event: Event<ManualSlice>) -> BTreeSet<ObjectName> {
        let is_complete = matches!(event, Event::ListDone);
        let mut affected = BTreeSet::new();
        for step in self.store.update(event) {
            if step.before != step.after {
                let sides = [&step.before, &step.after].into_iter().flatten();
                affected.extend(sides.filter_map(|written| service_key(&written.slice)));
            }
        }
        if is_complete {
            let before = std::mem::replace(&mut self.listed, Arc::clone(&self.announced));
            affected.extend(self.listed.difference(&before).cloned());
        }
        affected
    }
}
