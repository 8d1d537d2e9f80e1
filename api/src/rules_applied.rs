//! The condition `multusservice.cni.cncf.io/RulesApplied`, which a proxy keeps on its own Pod: reasons, and the backend that its
//! message names.
//!
//! Pure. `kubectl get pods -l app.kubernetes.io/name=multus-service-proxy -o json` shows the condition; the operator reads it.

use std::fmt;

/// Reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `True`: every attached pod of the node has its rules. The message names the backend.
    Applied,
    /// `False`: some pods have no rules, or not all of them. The message names the backend and the first of them.
    PartiallyApplied,
    /// The lists of Services, slices and pods are not complete yet, or the first sync of pods is not.
    Starting,
    /// No backend that the configuration allows works on this node's kernel.
    NoSupportedBackend,
    /// No container runtime answers: the network namespaces of pods cannot be found.
    ContainerRuntimeUnavailable,
    /// The archived multus-service proxy runs on this node, too; both would serve the same Services.
    LegacyProxyRunning,
    /// The cleanup of the node is not complete; the message names what failed.
    CleaningUp,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Applied,
        Self::PartiallyApplied,
        Self::Starting,
        Self::NoSupportedBackend,
        Self::ContainerRuntimeUnavailable,
        Self::LegacyProxyRunning,
        Self::CleaningUp,
    ];

    /// The reason as the condition has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "Applied",
            Self::PartiallyApplied => "PartiallyApplied",
            Self::Starting => "Starting",
            Self::NoSupportedBackend => "NoSupportedBackend",
            Self::ContainerRuntimeUnavailable => "ContainerRuntimeUnavailable",
            Self::LegacyProxyRunning => "LegacyProxyRunning",
            Self::CleaningUp => "CleaningUp",
        }
    }

    /// Parses the reason of a condition; `None` for a reason of a newer version.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether the node as a whole is at fault, which an administrator has to repair. With any other reason, `False` is about single
    /// pods, which is their owners' business.
    pub fn is_node_level(self) -> bool {
        matches!(
            self,
            Self::NoSupportedBackend | Self::ContainerRuntimeUnavailable | Self::LegacyProxyRunning
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The backend of a condition, as `spec.proxy.backend` names it; `None` when the condition names none. The proxy writes the backend
/// before the name of any pod, so that the first word that is a backend is the proxy's own.
pub fn backend(reason: &str, message: &str) -> Option<&'static str> {
    if !matches!(Reason::parse(reason)?, Reason::Applied | Reason::PartiallyApplied) {
        return None;
    }
    let mut words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.find_map(|word| match word {
        "nftables" => Some("NFTables"),
        "iptables-nft" | "iptables-legacy" => Some("IPTables"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_reason_parses_from_its_text() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("Later"), None);
    }

    #[rstest]
    #[case::nftables("Applied", "Rules are applied in 1 pod (backend nftables)", Some("NFTables"))]
    #[case::iptables(
        "Applied",
        "Rules are applied in 2 pods (backend iptables-nft)",
        Some("IPTables")
    )]
    #[case::before_pods(
        "PartiallyApplied",
        "Rules are applied in 2 pods (backend iptables-legacy); 1 degraded: pod nftables: x",
        Some("IPTables")
    )]
    #[case::another_reason("NoSupportedBackend", "nftables: not supported", None)]
    #[case::no_backend("Applied", "", None)]
    fn backend_is_the_first_one_named(
        #[case] reason: &str,
        #[case] message: &str,
        #[case] want: Option<&str>,
    ) {
        assert_eq!(backend(reason, message), want);
    }
}
