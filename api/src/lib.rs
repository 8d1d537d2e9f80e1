//! Names, annotations and types that operator, controller and proxy share.
//!
//! Pure: no tokio, no kube client, no I/O. A user meets this project through one label and one annotation on a Service:
//!
//! | on | key | means |
//! |---|---|---|
//! | Service label | [`names::PROXY_NAME_LABEL`] `= multus-proxy` | kube-proxy leaves this Service alone; we serve it |
//! | Service annotation | [`names::SERVICE_NETWORK_ANNOTATION`] | which network attachment its endpoints are on ([`NetworkRef`]) |
//! | Pod annotation | [`names::NETWORK_STATUS_ANNOTATION`] | written by Multus: the pod's addresses per network ([`network_status`]) |
//! | EndpointSlice label | [`names::MANAGED_BY_LABEL`] `=` [`names::MANAGED_BY`] | written by our controller |
//! | `MultusServiceConfig` `cluster` | [`config`] | how the administrator runs all this |

pub mod address;
pub mod config;
pub mod names;
pub mod network_ref;
pub mod network_status;
pub mod rules_applied;
pub mod service;
pub mod service_cidr;

pub use config::{MultusServiceConfig, MultusServiceConfigSpec, MultusServiceConfigStatus};
pub use network_ref::{NetworkRef, ParseNetworkRef};
pub use network_status::{NetworkStatus, ParseNetworkStatus};
