//! Errors of reads.
//!
//! Pure.

use std::fmt;

/// Permission that a request needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `get`, `list`, `create` or `delete`.
    pub verb: &'static str,
    /// The resource in the syntax of `kubectl auth can-i`: `pods`, `endpointslices.discovery.k8s.io`.
    pub resource: String,
    /// Namespace; `None`: the whole cluster.
    pub namespace: Option<String>,
}

impl Right {
    /// Returns the command that shows whether the user has it.
    pub fn question(&self) -> String {
        let Self { verb, resource, .. } = self;
        match &self.namespace {
            Some(namespace) => format!("kubectl auth can-i {verb} {resource} -n {namespace}"),
            None => format!("kubectl auth can-i {verb} {resource} -A"),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {} in namespace {namespace}", self.verb, self.resource),
            None => write!(f, "{} {} in the whole cluster", self.verb, self.resource),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ReadError {
    /// The user does not have the permission.
    #[error("no permission to {0}")]
    Forbidden(Right),
    /// The API server does not serve the kind.
    #[error("the cluster does not have the kind {0}")]
    NoKind(String),
    /// The request failed.
    #[error("{right} failed: {message}")]
    Failed {
        /// Permission of the request.
        right: Right,
        /// Error of the API server.
        message: String,
    },
    /// The command does not need it.
    #[error("not read")]
    NotRead,
    /// The command does not read the rules in force, or there is no proxy that can.
    #[error("{0}")]
    NotAvailable(String),
}

/// A value, or the error of its read.
pub type Read<T> = Result<T, ReadError>;

/// Reading a [`Read`] without handling its error: the report names the error elsewhere.
pub trait Known<T> {
    /// Returns the value, if it was read.
    fn known(&self) -> Option<&T>;
    /// Returns the error, if it was not.
    fn read_error(&self) -> Option<&ReadError>;
}

impl<T> Known<T> for Read<T> {
    fn known(&self) -> Option<&T> {
        self.as_ref().ok()
    }

    fn read_error(&self) -> Option<&ReadError> {
        self.as_ref().err()
    }
}
