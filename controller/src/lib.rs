//! The endpoint controller: EndpointSlices with the addresses that pods have on a secondary network.
//!
//! ```text
//! watches ─► index ─► triggers ─► queue ─► gather ─► accept, plan ─► apply
//!  [I/O]     [pure]    [pure]     [pure]   [pure]       [pure]       [the only writer]
//!                        └──────────── reconcile: the driver ───────────┘
//! ```
//!
//! | file | decides |
//! |---|---|
//! | [`manual`] | of which Services the author's own slices are kept, and how much of them |
//! | [`objects`] | what is remembered of Pods, Nodes, Services and slices |
//! | [`accept`] | whether a Service is served, from which network and pods |
//! | [`plan`] | which slices it should have, and the writes that lead there |
//! | [`triggers`] | which change wakes which Service |
//! | [`queue`] | when a woken Service is due |

pub mod accept;
pub mod apply;
pub mod condition;
pub mod decide;
#[cfg(test)]
mod documented_tests;
#[cfg(test)]
mod fuzz_tests;
pub mod gather;
pub mod index;
pub mod leftovers;
pub mod manual;
pub mod metrics;
pub mod notice;
pub mod objects;
pub mod plan;
pub mod queue;
pub mod reconcile;
mod run;
pub mod selector;
pub mod settings;
#[cfg(test)]
mod sync_tests;
pub mod triggers;
pub mod watches;

pub use run::{Error, run};
