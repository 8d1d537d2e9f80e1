//! The test bed: a real, throw-away Kubernetes, as small as a test needs it.
//!
//! - [`apiserver`]: etcd and kube-apiserver alone, private to one test binary;
//! - [`cluster`]: two nodes with kubelet, container runtime, kube-proxy and Multus (the `cluster` command);
//! - [`audit`]: the requests of each user to an apiserver;
//! - [`flood`]: attacks on the port for probes and metrics;
//! - [`fuzz`]: mutated inputs for decoders and parsers;
//! - [`images`]: container images without a docker engine or a registry;
//! - [`otelcol`]: a receiver of traces, the OpenTelemetry Collector;
//! - [`scrape`]: requests to an HTTPS port for metrics;
//! - [`tools`]: the pinned Kubernetes programs, built from Go modules and cached outside the checkout;
//! - [`wait`]: conditions with a limit, instead of sleeps.
//!
//! Nothing here is a mock: every program is the upstream one at the version its `go.mod` pins. Nothing here knows the product.

#![warn(missing_docs)]

pub mod apiserver;
pub mod audit;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod debian;
pub mod flood;
pub mod fuzz;
pub mod images;
pub mod log_file;
pub mod otelcol;
pub mod pki;
pub mod ports;
pub mod scrape;
pub mod tools;
pub mod wait;
