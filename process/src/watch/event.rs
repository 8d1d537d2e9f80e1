//! Event of a watch: the one form for all processes.
//!
//! Pure. An object that cannot be decoded is an event, too: it stops no watch.

use super::{Guarded, Unreadable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher;

/// Event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<T> {
    /// A new list begins.
    ListStarted,
    /// An object of the list.
    Listed(T),
    /// The list is complete: an object that it did not return is deleted.
    ListDone,
    /// An object was created or changed.
    Applied(T),
    /// An object was deleted, or left the selection of the watch.
    Deleted(Box<ObjectMeta>),
    /// An object, of the list or changed, exists but cannot be decoded. Its last known state stays.
    Unreadable(Box<Unreadable>),
}

impl<T> Event<T> {
    /// Returns the same event about another form of the object.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Event<U> {
        match self {
            Self::ListStarted => Event::ListStarted,
            Self::Listed(object) => Event::Listed(convert(object)),
            Self::ListDone => Event::ListDone,
            Self::Applied(object) => Event::Applied(convert(object)),
            Self::Deleted(metadata) => Event::Deleted(metadata),
            Self::Unreadable(unreadable) => Event::Unreadable(unreadable),
        }
    }
}

impl<K: Resource> From<watcher::Event<Guarded<K>>> for Event<K> {
    fn from(event: watcher::Event<Guarded<K>>) -> Self {
        let unreadable = Self::Unreadable;
        match event {
            watcher::Event::Init => Self::ListStarted,
            watcher::Event::InitApply(Guarded(object)) => object.map_or_else(unreadable, Self::Listed),
            watcher::Event::InitDone => Self::ListDone,
            watcher::Event::Apply(Guarded(object)) => object.map_or_else(unreadable, Self::Applied),
            watcher::Event::Delete(mut object) => Self::Deleted(Box::new(std::mem::take(object.meta_mut()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    fn guarded(cluster_ip: &serde_json::Value) -> Guarded<Service> {
        let object = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"clusterIP": cluster_ip}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_undecodable_object_is_an_event_of_its_own_with_its_name() {
        for event in [watcher::Event::InitApply, watcher::Event::Apply] {
            let Event::Unreadable(unreadable) = Event::from(event(guarded(&json!(7)))) else {
                panic!("it has no field of that type")
            };
            assert_eq!(unreadable.metadata.name.as_deref(), Some("web"));
        }
    }

    #[test]
    fn a_deleted_object_is_known_by_its_metadata_although_it_cannot_be_decoded() {
        for cluster_ip in [json!("10.0.0.1"), json!(7)] {
            let event = Event::from(watcher::Event::Delete(guarded(&cluster_ip)));
            let Event::Deleted(metadata) = event else {
                panic!("{event:?}")
            };
            assert_eq!(metadata.uid.as_deref(), Some("u"));
        }
    }
}
