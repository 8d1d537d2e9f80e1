//! The fields of the cluster's objects that decisions read.
//!
//! Pure. Two objects that compare equal here lead to the same endpoints, so an event between them enqueues no Service.

mod labels;
mod metadata;
mod node;
mod pod;
mod service_cidr;
mod slice;

pub use labels::Labels;
pub use node::{Node, NodeObject, Nodes};
pub use pod::{Attachment, NamedPort, Pod, PodObject};
pub use service_cidr::ServiceCidr;
pub use slice::{is_being_deleted, is_owned_by, owners, service_key, trim_service, trim_slice};

use kube::Resource;
use std::fmt;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object as the API server returns it.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
