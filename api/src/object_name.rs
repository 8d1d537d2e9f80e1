//! `ObjectName`: namespace and name of an object.
//!
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use std::fmt;

/// Namespace and name of an object. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// Sorts before all others.
    pub const FIRST: Self = Self {
        namespace: String::new(),
        name: String::new(),
    };

    /// A name from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of an object as the API server returns it. Parts that are missing are empty.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::of_metadata(object.meta())
    }

    /// The name of an object of which only the metadata is known.
    pub fn of_metadata(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Node, Service};
    use serde_json::json;

    #[test]
    fn an_object_has_the_name_of_its_metadata() {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "web"}})).unwrap();
        assert_eq!(ObjectName::of(&service), ObjectName::new("shop", "web"));
        assert_eq!(ObjectName::of(&service).to_string(), "shop/web");
    }

    #[test]
    fn a_cluster_scoped_object_has_an_empty_namespace() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "node1"}})).unwrap();
        assert_eq!(ObjectName::of(&node), ObjectName::new("", "node1"));
        assert!(ObjectName::FIRST < ObjectName::of(&node));
    }
}
