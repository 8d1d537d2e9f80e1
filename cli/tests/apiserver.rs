//! Broken situations on a real apiserver with the real controller: `explain` names each.
//!
//! Each row of the table (cli/src/situations/table.rs) is set up here and compared with what `explain` says.

#[path = "apiserver/bed.rs"]
mod bed;
#[path = "apiserver/clients.rs"]
mod clients;
#[path = "apiserver/connectivity.rs"]
mod connectivity;
#[path = "apiserver/installation.rs"]
mod installation;
#[path = "apiserver/must_gather.rs"]
mod must_gather;
#[path = "apiserver/pods.rs"]
mod pods;
#[path = "apiserver/program.rs"]
mod program;
#[path = "apiserver/rights.rs"]
mod rights;
#[path = "apiserver/services.rs"]
mod services;
