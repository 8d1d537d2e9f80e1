//! `kubectl multus-service`: inspects and troubleshoots Services on secondary networks.
//!
//! ```text
//! main ─► facts [I/O: reads, never writes] ─► explain | trace | status | check [pure] ─► render [pure]
//!         ├► must_gather [I/O: reads; writes a folder]
//!         └► connectivity [I/O: creates and deletes namespaces]
//! ```
//!
//! Decisions are made by the code of controller and proxy: `controller::reconcile` and `rules`.

pub mod args;
pub mod chain;
pub mod check;
pub mod completion;
pub mod connect;
pub mod connectivity;
mod differences;
pub mod explain;
pub mod facts;
pub mod must_gather;
pub mod progress;
pub mod render;
pub mod settings;
pub mod situations;
pub mod status;
pub mod trace;
