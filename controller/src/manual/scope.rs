//! Services whose manual slices are watched: those without any selector that have a ClusterIP.
//!
//! Pure. The oldest [`MAX_SERVICES`]: a new Service never takes the place of one that is served.

use super::MAX_SERVICES;
use api::ObjectName;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The Services whose slices a watch delivers.
pub type Scope = Arc<BTreeSet<ObjectName>>;

/// Services without any selector, and which of them are in the scope.
#[derive(Debug, Default)]
pub struct ScopedServices {
    created: BTreeMap<ObjectName, Timestamp>,
    scope: Scope,
    is_stale: bool,
}

impl ScopedServices {
    /// Records a Service that was added or changed; `None` if it is not (any more) one of these.
    pub fn note(&mut self, key: &ObjectName, created: Option<Timestamp>) {
        self.is_stale |= match created {
            Some(created) => self.created.insert(key.clone(), created) != Some(created),
            None => self.created.remove(key).is_some(),
        };
    }

    /// The scope as it should be.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Updates the scope; returns the Services that it no longer contains.
    pub fn choose(&mut self) -> Vec<ObjectName> {
        if !std::mem::take(&mut self.is_stale) {
            return Vec::new();
        }
        let mut by_age: Vec<_> = self.created.iter().map(|(key, created)| (created, key)).collect();
        by_age.sort_unstable();
        let chosen = by_age.into_iter().take(MAX_SERVICES);
        let chosen: BTreeSet<_> = chosen.map(|(_, key)| key.clone()).collect();
        if chosen == *self.scope {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.scope, Arc::new(chosen));
        let is_out = |key: &&ObjectName| self.created.contains_key(*key) && !self.scope.contains(*key);
        before.iter().filter(is_out).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ObjectName {
        ObjectName::new("shop", format!("db-{n}"))
    }

    fn at(second: usize) -> Timestamp {
        Timestamp::from_second(second.try_into().unwrap()).unwrap()
    }

    #[test]
    fn the_oldest_services_are_in_the_scope_and_others_follow_when_it_shrinks() {
        let mut scoped = ScopedServices::default();
        for n in 0..=MAX_SERVICES {
            scoped.note(&key(n), Some(at(100 + n)));
        }
        assert_eq!(scoped.choose(), []);
        let last = key(MAX_SERVICES);
        assert!(scoped.scope().contains(&key(0)) && !scoped.scope().contains(&last));
        scoped.note(&key(0), Some(at(100)));
        assert!(!scoped.is_stale, "nothing new");
        scoped.note(&key(3), None);
        assert_eq!(scoped.choose(), []);
        assert!(scoped.scope().contains(&last));
        // The label is put on a Service that is older than all.
        scoped.note(&key(9999), Some(at(1)));
        assert_eq!(scoped.choose(), [last]);
    }
}
