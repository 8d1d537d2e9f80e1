//! The condition `multusservice.cni.cncf.io/RulesApplied` that a proxy keeps on its own Pod: its reasons, and what they mean to
//! whoever reads them.
//!
//! Pure. `kubectl get pods -l app.kubernetes.io/name=multus-service-proxy -o json` shows it; the operator judges by it.

use std::fmt;

/// Why the condition has the status it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Rules are written by nftables. `False`: some pods are not served, or not fully; the message names the first of them.
    NfTables,
    /// The same with the iptables programs.
    IpTables,
    /// The lists of Services, slices and pods have not come yet, or the pods of the first list are being worked on.
    Starting,
    /// Nothing of what the configuration allows works on this node's kernel.
    KernelLacksBackend,
    /// No container runtime answers: the network namespaces of pods cannot be found.
    NoRuntimeSocket,
    /// The proxy of the archived Go project runs on this node, too; both would serve the same Services.
    OriginalProxyRuns,
    /// The node is being cleaned; the message says what could not be.
    CleaningUp,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NfTables,
        Self::IpTables,
        Self::Starting,
        Self::KernelLacksBackend,
        Self::NoRuntimeSocket,
        Self::OriginalProxyRuns,
        Self::CleaningUp,
    ];

    /// As it stands in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NfTables => "NFTables",
            Self::IpTables => "IPTables",
            Self::Starting => "Starting",
            Self::KernelLacksBackend => "KernelLacksBackend",
            Self::NoRuntimeSocket => "NoRuntimeSocket",
            Self::OriginalProxyRuns => "OriginalProxyRuns",
            Self::CleaningUp => "CleaningUp",
        }
    }

    /// Reads it from a condition; `None` for one of a newer version.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether the node as a whole is at fault, which an administrator has to mend. With any other reason, `False` is about single
    /// pods, which is their owners' business.
    pub fn is_of_the_node(self) -> bool {
        matches!(
            self,
            Self::KernelLacksBackend | Self::NoRuntimeSocket | Self::OriginalProxyRuns
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_as_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("Later"), None);
    }
}
