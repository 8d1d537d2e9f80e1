//! The endpoint controller: EndpointSlices with the addresses that pods have on a secondary network.
//!
//! ```text
//! watches ─► index ─► triggers ─► work_queue ─► observe ─► reconcile ─► apply
//!  [I/O]     [pure]    [pure]       [pure]       [pure]     [pure]     [the only writer]
//!               └──────────────────── controller: the driver ─────────────┘
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`objects`] | the fields of Pods, Nodes, Services and slices that decisions read |
//! | [`index`] | the current state of all watched objects |
//! | [`manual`] | EndpointSlices that a Service's author writes: which Services are watched for them, and the limits |
//! | `triggers` | the Services that a change affects |
//! | `work_queue` | the time at which a Service is due: rate limit, backoff |
//! | [`observe`] | everything known about one Service |
//! | [`validate`] | acceptance of a Service: its network and selector |
//! | [`reconcile`] | the decision for one Service |
//! | `endpointslice` | the slices that it should have, and the writes that lead to them |
//! | [`service_status`] | problems, the Accepted condition, Events |
//! | [`apply`] | all writes |
//! | `trace` | the span of an attempt |

pub mod apply;
pub mod controller;
mod endpointslice;
#[cfg(test)]
mod fuzz_tests;
pub mod index;
pub mod manual;
pub mod metrics;
pub mod objects;
pub mod observe;
pub mod reconcile;
mod run;
mod selector;
pub mod service_status;
pub mod settings;
#[cfg(test)]
mod sync_tests;
mod trace;
mod triggers;
pub mod validate;
pub mod watches;
mod work_queue;

pub use run::{Error, run};
