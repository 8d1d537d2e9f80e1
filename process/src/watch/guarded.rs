//! Tolerant deserialization of an object of a watch: one malformed object must not stop a list.
//!
//! Pure. kube's `DeserializeGuard` builds a tree of every object, and a copy of it, before it deserializes a field; ten thousand pods then
//! cost seconds and tens of megabytes. Here the text is kept instead, and only the fields of the type are parsed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The object, or the metadata and the error of a malformed one.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Box<Unreadable>>);

/// An object that does not match its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Error of the parser.
    pub error: String,
    /// Metadata of the object.
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let error: String = match serde_json::from_str(text.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            // The error may quote all of a huge text.
            Err(error) => error.to_string().chars().take(200).collect(),
        };
        let MetadataOnly { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(Box::new(Unreadable { error, metadata }))))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|bad| &bad.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|bad| &mut bad.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::api::{ObjectList, WatchEvent};

    const GOOD: &str = r#"{"metadata": {"name": "good"}, "spec": {"clusterIP": "10.0.0.1"}}"#;
    const BAD: &str = r#"{"metadata": {"name": "bad", "namespace": "shop", "resourceVersion": "7"}, "spec": {"clusterIP": 7}}"#;

    #[test]
    fn a_malformed_object_in_a_list_does_not_affect_others() {
        let text = format!(
            r#"{{"kind": "ServiceList", "apiVersion": "v1", "metadata": {{"resourceVersion": "9"}}, "items": [{GOOD}, {BAD}]}}"#
        );
        let list: ObjectList<Guarded<Service>> = serde_json::from_str(&text).unwrap();
        assert!(list.items[0].0.is_ok());
        assert_eq!(list.items[1].meta().name.as_deref(), Some("bad"));
        let bad = list.items[1].0.as_ref().unwrap_err();
        assert!(bad.error.contains("invalid type"), "{}", bad.error);
    }

    #[test]
    fn a_malformed_object_of_a_watch_has_its_version() {
        let text = format!(r#"{{"type": "MODIFIED", "object": {BAD}}}"#);
        let event: WatchEvent<Guarded<Service>> = serde_json::from_str(&text).unwrap();
        let WatchEvent::Modified(object) = event else {
            panic!("not an event of its type")
        };
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }
}
