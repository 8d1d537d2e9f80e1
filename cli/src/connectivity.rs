//! `connectivity-test`: temporary servers and clients on a network, and what their packets meet.
//!
//! ```text
//! run [I/O: creates and deletes a namespace] ─► objects [pure]
//! server, client [I/O: the programs of the pods] ─► result [pure] ─► render
//! ```
//!
//! It is the only command that writes to the cluster. Everything that it creates is in a namespace of its own.

pub mod client;
mod cluster;
mod endpoints;
mod objects;
mod options;
mod result;
mod run;
mod selection;
pub mod server;
mod signals;
mod steps;

pub use options::{Error, Options};
pub use result::{Check, CheckResult, Connectivity, NetworkResult, NodeResult};
pub use run::{cleanup, test};

use std::time::Duration;

/// TCP and UDP port of the servers.
pub const SERVER_PORT: u16 = 8080;
/// TCP and UDP port of the Services.
const SERVICE_PORT: u16 = 80;
/// Pods of a Service.
const SERVERS: usize = 2;
/// Last line of a client's log.
pub const END: &str = "end";
/// Interval of polls.
const PAUSE: Duration = Duration::from_secs(1);
