//! Reasons for a failed attempt.
//!
//! Pure.

use crate::container_runtime;
use crate::metrics::Cause;
use crate::netns;
use crate::netns::apply;
use crate::netns::memory::NoMemory;
use process::error_chain;

/// Reason for a failed attempt.
#[derive(Debug, thiserror::Error)]
pub(in crate::sync) enum Error {
    #[error(transparent)]
    Sandbox(#[from] container_runtime::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// Connection tracking.
    #[error(transparent)]
    Flows(std::io::Error),
    /// Rules would not apply to packets of the pod.
    #[error(
        "runtime handler {0:?} gives the pod a network stack of its own (gVisor, Kata), to which rules do not apply: its flows to ClusterIPs are not served"
    )]
    OwnStack(String),
    /// The thread panicked; the namespace may hold anything.
    #[error("the work in the network namespace ended without a result")]
    Lost,
    /// The pod is deleted; a recreated one has another UID.
    #[error("the pod is deleted")]
    Abandoned,
}

impl Error {
    /// Returns the error of the container runtime, if that is the cause.
    pub(in crate::sync) fn runtime_error(&self) -> Option<String> {
        match self {
            Self::Sandbox(
                error @ (container_runtime::Error::NoRuntime(_) | container_runtime::Error::Runtime(_)),
            ) => Some(error_chain(error)),
            _ => None,
        }
    }

    /// Returns the cause for the metrics.
    pub(in crate::sync) fn cause(&self) -> Cause {
        match self {
            Self::Sandbox(container_runtime::Error::NoRuntime(_) | container_runtime::Error::Runtime(_)) => {
                Cause::ContainerRuntime
            }
            Self::Sandbox(_) => Cause::Sandbox,
            Self::Netns(_) => Cause::Netns,
            Self::Apply(apply::Error::Addresses(_) | apply::Error::NotThePod) => Cause::Addresses,
            Self::Apply(apply::Error::Backend(_)) => Cause::Rules,
            Self::Apply(apply::Error::Routes(_)) => Cause::Routes,
            Self::Memory(_) => Cause::Memory,
            Self::Flows(_) => Cause::Conntrack,
            Self::OwnStack(_) | Self::Lost | Self::Abandoned => Cause::Other,
        }
    }

    /// Returns true when the cause is in the namespace, which the owner of the pod can influence.
    pub(in crate::sync) fn is_netns_fault(&self) -> bool {
        matches!(self, Self::Apply(_))
    }

    /// Returns true when the namespace has no address of the pod yet.
    pub(in crate::sync) fn is_unidentified(&self) -> bool {
        matches!(self, Self::Apply(apply::Error::NotThePod))
    }

    /// Returns true when a retry in the same sandbox cannot succeed.
    pub(in crate::sync) fn is_final(&self) -> bool {
        matches!(self, Self::OwnStack(_))
    }

    /// Returns true when the pod has no network namespace at present.
    pub(in crate::sync) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Sandbox(container_runtime::Error::NotReady) | Self::Netns(netns::Error::Gone { .. })
        )
    }
}
