//! Names, annotations and types that operator, controller and proxy share.
//!
//! Pure: no tokio, no kube client, no I/O. A user meets this project through one label and one annotation on a Service:
//!
//! | on | key | means |
//! |---|---|---|
//! | Service label | [`names::PROXY_NAME_LABEL`] `= multus-proxy` | kube-proxy skips this Service; multus-service serves it |
//! | Service annotation | [`names::SERVICE_NETWORK_ANNOTATION`] | the network attachment of its endpoints ([`NetworkRef`]) |
//! | Pod annotation | [`names::NETWORK_STATUS_ANNOTATION`] | written by Multus: the pod's addresses per network ([`network_status`]) |
//! | EndpointSlice label | [`names::MANAGED_BY_LABEL`] `=` [`names::MANAGED_BY`] | written by the controller |
//! | `MultusServiceConfig` `cluster` | [`config`] | configuration of the installation |

#![warn(missing_docs)]

pub mod address;
pub mod config;
pub mod family;
pub mod names;
pub mod namespace_isolation;
pub mod network_ref;
pub mod network_status;
pub mod object_name;
pub mod rules_applied;
pub mod service;
pub mod service_cidr;

pub use config::{MultusServiceConfig, MultusServiceConfigSpec, MultusServiceConfigStatus};
pub use family::Family;
pub use namespace_isolation::NamespaceIsolation;
pub use network_ref::{NetworkRef, ParseNetworkRef};
pub use network_status::{NetworkStatus, ParseNetworkStatus};
pub use object_name::ObjectName;
