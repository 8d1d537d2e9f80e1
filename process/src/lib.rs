//! The runtime of operator, controller and proxy: arguments, logs, traces, the Kubernetes client, Events, health and metrics endpoints,
//! the lease, shutdown. No domain.
//!
//! A `main` parses its arguments and calls [`run`] with its work; every long-running task is joined there, none is detached.

#![warn(missing_docs)]

mod admin;
mod args;
mod client;
mod error_chain;
pub mod events;
pub mod exposition;
mod health;
pub mod lease;
pub mod logs;
pub mod metrics;
mod run;
mod shutdown;
pub mod traces;
pub mod watch;

pub use args::ProcessArgs;
pub use client::{Error as ClientError, connect};
pub use error_chain::error_chain;
pub use health::Health;
pub use run::{Error, Identity, Process, run, run_with_routes};
