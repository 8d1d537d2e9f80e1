//! The proxy: programs routes and NAT for ClusterIPs inside the network namespaces of attached pods.
//!
//! ```text
//! main ─► serve ─► sync (driver) ── watches ─► index [pure] ─► rules::plan [pure]
//!                    │ ◄─ tampering (routes, links, addresses that others change), generation (rules that others change)
//!                    └─► attempt ── sandbox (CRI) ─► netns ─► apply ─┬─► reach (which endpoints there is a way to)
//!                                                                   ├─► backend ─► render [pure]
//!                                                                   ├─► routes
//!                                                                   └─► conntrack
//! cleanup ── sandbox ─► netns ─► apply::remove
//! ```

mod addresses;
pub mod apply;
pub mod args;
pub mod backend;
pub mod cleanup;
pub mod condition;
mod conntrack;
mod decode;
#[cfg(test)]
mod documented_tests;
pub mod events;
pub mod failure;
#[doc(hidden)]
pub mod fault;
#[cfg(test)]
mod fuzz_tests;
mod generation;
pub mod hollow;
pub mod host;
pub mod index;
pub mod memory;
pub mod metrics;
mod netfilter;
mod netlink;
pub mod netns;
mod original;
mod reach;
pub mod render;
mod routes;
pub mod sandbox;
pub mod serve;
#[cfg(test)]
mod sig_network;
pub mod state;
pub mod surroundings;
pub mod sync;
mod tampering;
pub mod watches;
