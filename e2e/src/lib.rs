//! The test bed: a real, throw-away Kubernetes, as small as a test needs it.
//!
//! - [`apiserver`]: etcd and kube-apiserver alone, private to one test binary;
//! - [`cluster`]: two nodes with kubelet, container runtime, kube-proxy and Multus (the `cluster` command);
//! - [`demo`]: the product on that cluster, and what it promises, as functions ([`demo::installed`] for tests);
//! - [`olm_v0`]: the Operator Lifecycle Manager on that cluster;
//! - [`audit`]: who asked an apiserver for what; [`traffic`]: steady connections from a pod, and what became of them;
//! - [`flood`]: attacks on the port for probes and metrics;
//! - [`fuzz`]: mutated inputs for decoders and parsers;
//! - [`release`]: what is published;
//! - [`tools`]: the pinned Kubernetes programs, built from Go modules and cached outside the checkout.
//!
//! Nothing here is a mock: every program is the upstream one at the version its `go.mod` pins.

#![warn(missing_docs)]

pub mod apiserver;
pub mod audit;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod debian;
pub mod demo;
pub mod flood;
pub mod fuzz;
pub mod images;
pub mod olm_v0;
pub mod pki;
pub mod release;
pub mod tools;
pub mod traffic;
pub mod wait;
