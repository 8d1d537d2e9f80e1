//! The proxy: programs routes and NAT for ClusterIPs inside the network namespaces of attached pods.
//!
//! ```text
//! main ─► serve ─► sync (driver) ── watch ─► index [pure] ─► rules::plan [pure]
//!                    │ ◄─ netlink::monitor (routes, links and addresses changed by other processes),
//!                    │    netlink::generation (nftables rules changed by other processes)
//!                    ├─► attempt ── container_runtime (CRI) ─► netns::apply ─┬─► reachability (which endpoints have a route)
//!                    │                                                      ├─► backend (nftables | iptables ─► render [pure])
//!                    │                                                      ├─► routes
//!                    │                                                      └─► conntrack
//!                    └─► report ── pod_events, node_condition
//! cleanup ── container_runtime ─► netns::apply::remove
//! ```

pub mod args;
pub mod backend;
pub mod cleanup;
mod cluster_info;
pub mod container_runtime;
pub mod debug_state;
#[doc(hidden)]
pub mod fault_injection;
#[cfg(test)]
mod fuzz_tests;
pub mod hollow;
pub mod index;
pub mod metrics;
mod netlink;
pub mod netns;
pub mod read_rules;
pub mod report;
pub mod serve;
pub mod sync;
pub mod watch;
