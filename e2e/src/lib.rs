//! The product on the test bed.
//!
//! - [`admin`]: objects of an administrator, and the configuration of the product;
//! - [`demo`]: installs the product on the cluster, and what it promises, as functions ([`demo::installed`] for tests);
//! - [`olm_v0`]: the Operator Lifecycle Manager on the cluster;
//! - [`picture`]: the dashboard with the data of a Prometheus, drawn;
//! - [`plugin`]: the kubectl plugin, as a user runs it;
//! - [`prometheus`]: a Prometheus that discovers, scrapes and alerts as the objects of the operator configure it;
//! - [`traffic`]: steady connections from a pod, and the result of each.

#![warn(missing_docs)]

pub mod admin;
pub mod demo;
#[cfg(test)]
mod metrics_reference;
pub mod olm_v0;
pub mod picture;
pub mod plugin;
pub mod prometheus;
pub mod traffic;
