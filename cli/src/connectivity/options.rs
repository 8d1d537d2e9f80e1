//! Options and errors of a test.
//!
//! Pure.

use crate::facts::ReadError;
use api::ObjectName;
use std::time::Duration;

/// Options of a test.
#[derive(Clone, Debug)]
pub struct Options {
    /// The networks; none: all of the namespace.
    pub networks: Vec<ObjectName>,
    /// Nodes with a client; none: all with a proxy.
    pub nodes: Vec<String>,
    /// Image of the pods; `None`: that of the release.
    pub image: Option<String>,
    /// Timeout of the servers, and that of the clients, of one network.
    pub timeout: Duration,
}

/// Error of a test: nothing was tested.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read that the test needs.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No configuration.
    #[error("multus-service is not installed; run kubectl multus-service check")]
    NotInstalled,
    /// Nothing to test.
    #[error("namespace {0} has no network-attachment-definitions; name networks as NAMESPACE/NAME")]
    NoNetworks(String),
    /// Nowhere to test.
    #[error("no ready node has a proxy; run kubectl multus-service status")]
    NoNodes,
    /// A misspelt node.
    #[error("node {0} does not exist; kubectl get nodes lists them")]
    UnknownNode(String),
    /// The process cannot handle signals.
    #[error("failed to handle signals")]
    Signals(#[source] std::io::Error),
}
