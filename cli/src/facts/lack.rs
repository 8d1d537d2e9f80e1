//! Why something was not read.
//!
//! Pure.

use std::fmt;

/// What one request needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `get` or `list`.
    pub verb: &'static str,
    /// The resource as `kubectl auth can-i` takes it: `pods`, `endpointslices.discovery.k8s.io`.
    pub resource: String,
    /// None: in the whole cluster.
    pub namespace: Option<String>,
}

impl Right {
    /// The command that shows whether the user has it.
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

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Lack {
    /// The user may not read it.
    #[error("no right to {0}")]
    Forbidden(Right),
    /// The API server has no such kind.
    #[error("the cluster has no kind {0}")]
    NoKind(String),
    /// The request failed otherwise.
    #[error("{right} failed: {message}")]
    Failed {
        /// What was asked.
        right: Right,
        /// What was answered.
        message: String,
    },
    /// The command does not need it.
    #[error("not read")]
    NotRead,
    /// No version of the software offers it.
    #[error("what the node has applied cannot be read: the proxy has no endpoint for it yet")]
    NotOffered,
}

/// Something that is known, or why it is not.
pub type Read<T> = Result<T, Lack>;

/// Reading a [`Read`] without handling its error: the report names it elsewhere.
pub trait Known<T> {
    /// The value, if it is known.
    fn known(&self) -> Option<&T>;
    /// Why it is not known.
    fn lack(&self) -> Option<&Lack>;
}

impl<T> Known<T> for Read<T> {
    fn known(&self) -> Option<&T> {
        self.as_ref().ok()
    }

    fn lack(&self) -> Option<&Lack> {
        self.as_ref().err()
    }
}
