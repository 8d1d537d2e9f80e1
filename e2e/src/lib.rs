//! The product on the test bed.
//!
//! - [`demo`]: installs the product on the cluster, and what it promises, as functions ([`demo::installed`] for tests);
//! - [`olm_v0`]: the Operator Lifecycle Manager on the cluster;
//! - [`traffic`]: steady connections from a pod, and the result of each.

#![warn(missing_docs)]

pub mod demo;
#[cfg(test)]
mod metrics_reference;
pub mod olm_v0;
pub mod traffic;
