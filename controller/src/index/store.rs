//! Objects of one kind by namespace and name, fed by one watch.
//!
//! Pure. A list replaces the content only when it is complete: until then objects that it has not returned yet stay.

use crate::index::ServiceEntry;
use crate::objects::{Node, Pod, ServiceCidr};
use api::ObjectName;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
#[cfg(test)]
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use process::watch::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Metadata of an object with this key.
#[cfg(test)]
pub(crate) fn metadata(key: &ObjectName) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        ..ObjectMeta::default()
    }
}

/// An object with a key.
pub trait Keyed {
    /// Namespace and name.
    fn key(&self) -> ObjectName;
}

impl Keyed for Pod {
    fn key(&self) -> ObjectName {
        Self::key(self)
    }
}

impl Keyed for Node {
    fn key(&self) -> ObjectName {
        ObjectName::new("", &self.name)
    }
}

impl Keyed for ServiceCidr {
    fn key(&self) -> ObjectName {
        ObjectName::new("", &self.name)
    }
}

impl Keyed for ObjectName {
    fn key(&self) -> ObjectName {
        self.clone()
    }
}

impl Keyed for Service {
    fn key(&self) -> ObjectName {
        ObjectName::of(self)
    }
}

impl Keyed for ServiceEntry {
    fn key(&self) -> ObjectName {
        ObjectName::of(&self.service)
    }
}

impl Keyed for EndpointSlice {
    fn key(&self) -> ObjectName {
        ObjectName::of(self)
    }
}

/// One object, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<T> {
    /// The object's key.
    pub key: ObjectName,
    /// Its state before; `None` if it did not exist.
    pub before: Option<Arc<T>>,
    /// Its state now; `None` if it no longer exists.
    pub after: Option<Arc<T>>,
}

impl<T> Step<T> {
    /// Returns true if nothing changed: both values are the same allocation.
    pub fn is_idle(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (None, None) => true,
            _ => false,
        }
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    objects: BTreeMap<String, BTreeMap<String, Arc<T>>>,
    unreadable: BTreeSet<ObjectName>,
    /// Keys that the list in progress has returned.
    listed: Option<BTreeSet<ObjectName>>,
    is_synced: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            listed: None,
            is_synced: false,
        }
    }
}

impl<T: Keyed + PartialEq> Store<T> {
    /// Returns true once a list was completed.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    pub fn get(&self, key: &ObjectName) -> Option<&Arc<T>> {
        self.objects.get(&key.namespace)?.get(&key.name)
    }

    /// Returns true if the object exists but was never decoded.
    pub fn is_unreadable(&self, key: &ObjectName) -> bool {
        self.unreadable.contains(key) && self.get(key).is_none()
    }

    /// The objects of a namespace, in the order of names.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        self.objects.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Every object.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = ObjectName> {
        self.objects.iter().flat_map(|(namespace, objects)| {
            objects
                .keys()
                .map(|name| ObjectName::new(namespace.clone(), name.clone()))
        })
    }

    /// Applies an event.
    pub fn update(&mut self, event: Event<T>) -> Vec<Step<T>> {
        match event {
            Event::ListStarted => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Event::Listed(object) => {
                let key = object.key();
                let step = self.put(key.clone(), object);
                self.listed.get_or_insert_default().insert(key);
                vec![step]
            }
            Event::Applied(object) => {
                let key = object.key();
                // Newer than the list in progress, which may not contain it: an object created meanwhile must not count as deleted at the
                // end of the list.
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                vec![self.put(key, object)]
            }
            Event::Deleted(metadata) => self
                .remove(ObjectName::of_metadata(&metadata))
                .into_iter()
                .collect(),
            Event::Unreadable(unreadable) => {
                let key = ObjectName::of_metadata(&unreadable.metadata);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.unreadable.insert(key);
                Vec::new()
            }
            Event::ListDone => self.end_list(),
        }
    }

    /// An unchanged object keeps its allocation: a new list of ten thousand equal objects costs no more than comparing them.
    fn put(&mut self, key: ObjectName, object: T) -> Step<T> {
        self.unreadable.remove(&key);
        let namespace = self.objects.entry(key.namespace.clone()).or_default();
        let before = namespace.get(&key.name).cloned();
        let after = match &before {
            Some(known) if **known == object => Arc::clone(known),
            _ => Arc::new(object),
        };
        if before.is_none() || before.as_ref().is_some_and(|before| !Arc::ptr_eq(before, &after)) {
            namespace.insert(key.name.clone(), Arc::clone(&after));
        }
        Step {
            key,
            before,
            after: Some(after),
        }
    }

    fn remove(&mut self, key: ObjectName) -> Option<Step<T>> {
        self.unreadable.remove(&key);
        let namespace = self.objects.get_mut(&key.namespace)?;
        let before = namespace.remove(&key.name)?;
        if namespace.is_empty() {
            self.objects.remove(&key.namespace);
        }
        Some(Step {
            key,
            before: Some(before),
            after: None,
        })
    }

    fn end_list(&mut self) -> Vec<Step<T>> {
        self.is_synced = true;
        let listed = self.listed.take().unwrap_or_default();
        self.unreadable.retain(|key| listed.contains(key));
        let gone: Vec<_> = self.keys().filter(|key| !listed.contains(key)).collect();
        gone.into_iter().filter_map(|key| self.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use process::watch::Unreadable;

    fn key(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn names(store: &Store<ObjectName>) -> Vec<String> {
        store.keys().map(|key| key.name).collect()
    }

    fn deleted(name: &str) -> Event<ObjectName> {
        Event::Deleted(Box::new(metadata(&key(name))))
    }

    fn unreadable(name: &str) -> Event<ObjectName> {
        let (error, metadata) = (String::new(), metadata(&key(name)));
        Event::Unreadable(Box::new(Unreadable { error, metadata }))
    }

    #[test]
    fn the_pod_tracker_of_the_archived_controller() {
        let mut store = Store::default();
        assert_eq!(names(&store), [] as [&str; 0]);
        store.update(Event::Applied(key("a")));
        assert_eq!(names(&store), ["a"]);
        store.update(deleted("a"));
        store.update(Event::Applied(key("a")));
        assert_eq!(names(&store), ["a"]);
        assert_eq!(
            store.update(deleted("missing")),
            [],
            "nothing known, nothing changed"
        );
    }

    #[test]
    fn a_list_removes_missing_objects_only_when_complete() {
        let mut store = Store::default();
        store.update(Event::Applied(key("stays")));
        store.update(Event::Applied(key("goes")));
        assert!(!store.is_synced());
        store.update(Event::ListStarted);
        store.update(Event::Listed(key("stays")));
        assert_eq!(
            names(&store),
            ["goes", "stays"],
            "half a list says nothing about the rest"
        );
        let steps = store.update(Event::ListDone);
        assert!(store.is_synced());
        assert_eq!(names(&store), ["stays"]);
        assert_eq!(
            steps
                .iter()
                .map(|step| (&*step.key.name, step.after.is_some()))
                .collect::<Vec<_>>(),
            [("goes", false)]
        );
    }

    #[test]
    fn changes_during_a_list_survive_its_end() {
        let mut store = Store::default();
        store.update(Event::ListStarted);
        store.update(Event::Applied(key("new")));
        assert_eq!(store.update(Event::ListDone), []);
        assert_eq!(names(&store), ["new"]);
    }

    #[test]
    fn an_equal_object_keeps_its_allocation() {
        let mut store = Store::default();
        store.update(Event::Applied(key("a")));
        let known = Arc::clone(store.get(&key("a")).unwrap());
        store.update(Event::ListStarted);
        let steps = store.update(Event::Listed(key("a")));
        assert!(steps[0].is_idle());
        assert!(Arc::ptr_eq(store.get(&key("a")).unwrap(), &known));
    }

    #[test]
    fn an_undecodable_object_keeps_its_last_state() {
        let mut store = Store::default();
        store.update(Event::Applied(key("known")));
        store.update(Event::ListStarted);
        store.update(unreadable("known"));
        store.update(unreadable("new"));
        assert_eq!(store.update(Event::ListDone), []);
        assert_eq!(names(&store), ["known"], "what was known stays");
        assert!(store.is_unreadable(&key("new")) && !store.is_unreadable(&key("known")));
        store.update(Event::Applied(key("new")));
        assert!(!store.is_unreadable(&key("new")), "it was repaired");
    }
}
