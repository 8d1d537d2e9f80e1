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
