//! Cause of a failing pod, as a label: a fixed set.
//!
//! Pure.

use prometheus_client::encoding::EncodeLabelSet;

/// Cause for which the last attempt on a pod failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No container runtime responds: all pods of the node fail.
    ContainerRuntime,
    /// The runtime reports no sandbox of the pod, or none with a network namespace.
    Sandbox,
    /// The network namespace cannot be entered.
    Netns,
    /// The namespace lacks an interface or an address of the pod.
    Addresses,
    /// The kernel rejects the rules, or they cannot be read.
    Rules,
    /// Routes cannot be read or written.
    Routes,
    /// Rules or routes of some ClusterIPs failed; all others are applied.
    Partial,
    /// Stale connection tracking entries cannot be deleted.
    Conntrack,
    /// The limit of memory for the work in pods is reached.
    Memory,
    /// Anything else, such as a thread that panicked.
    Other,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 10] = [
        Self::ContainerRuntime,
        Self::Sandbox,
        Self::Netns,
        Self::Addresses,
        Self::Rules,
        Self::Routes,
        Self::Partial,
        Self::Conntrack,
        Self::Memory,
        Self::Other,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ContainerRuntime => "container_runtime",
            Self::Sandbox => "sandbox",
            Self::Netns => "netns",
            Self::Addresses => "addresses",
            Self::Rules => "rules",
            Self::Routes => "routes",
            Self::Partial => "partial",
            Self::Conntrack => "conntrack",
            Self::Memory => "memory",
            Self::Other => "other",
        }
    }

    pub(super) fn label(self) -> CauseLabel {
        CauseLabel { cause: self.as_str() }
    }
}

/// Label `cause`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CauseLabel {
    pub(super) cause: &'static str,
}

/// Number of pods by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failing([usize; Cause::ALL.len()]);

impl Failing {
    /// Adds a pod.
    pub fn add(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// Iterates over all causes.
    pub(super) fn iter(self) -> impl Iterator<Item = (Cause, usize)> {
        Cause::ALL.into_iter().zip(self.0)
    }
}
