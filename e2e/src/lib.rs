//! The test bed: a real, throw-away Kubernetes, as small as a test needs it.
//!
//! - [`apiserver`]: etcd and kube-apiserver alone, private to one test binary;
//! - [`cluster`]: two nodes with kubelet, container runtime, kube-proxy and Multus (the `cluster` command);
//! - [`tools`]: the pinned Kubernetes programs, built from Go modules and cached outside the checkout.
//!
//! Nothing here is a mock: every program is the upstream one at the version its `go.mod` pins.

pub mod apiserver;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod debian;
pub mod demo;
pub mod images;
pub mod pki;
pub mod tools;
pub mod wait;
