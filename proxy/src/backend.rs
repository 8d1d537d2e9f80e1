//! Interface of the backends, which write rules into the kernel.
//!
//! Writes: rules in the calling thread's network namespace; the caller has entered the pod's. A backend decides nothing: it renders
//! [`PodRules`](rules::PodRules), writes only differences, and never changes tables, chains or rules of other programs.

pub mod detect;
pub mod iptables;
pub mod nftables;

use api::Family;
use rules::{Delta, KernelState};
use std::path::Path;

/// Knowledge of our rules in a network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownRules<T> {
    /// The namespace has no rules: it is younger than this process.
    Nothing,
    /// The rules have to be read before a write: an earlier proxy wrote them, or a write failed.
    #[default]
    Unknown,
    /// The rules of the last write.
    Exactly(T),
}

/// Error of a backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("failed to run {program:?}; is it in the image?")]
    Run {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A program rejected a change.
    #[error("{program} rejected: {stderr}")]
    Rejected {
        /// Name of the program.
        program: &'static str,
        /// Its output, truncated.
        stderr: String,
    },
    /// The listing of a program could not be read.
    #[error("failed to read the output of {program}")]
    Lists {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel rejected a request.
    #[error("the kernel rejected the request to {action}")]
    Kernel {
        /// Requested action.
        action: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The rules are not those of the last write; nothing was written.
    #[error("another process changed the rules at the same time")]
    Stale,
    /// The node supports no allowed backend.
    #[error("no supported backend on this node: {0}")]
    None(String),
}

/// Memory per item of the rules of a pod, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerItem {
    /// For reads and writes of all rules.
    pub whole: usize,
    /// For a change of one item.
    pub change: usize,
}

/// Returns the address families of the calling thread's namespace. Without IPv6 there are no IPv6 VIPs.
fn families() -> impl Iterator<Item = Family> {
    let has_ipv6 = Path::new("/proc/thread-self/net/if_inet6").exists();
    let there = move |family: &Family| *family == Family::V4 || has_ipv6;
    Family::ALL.into_iter().filter(there)
}

/// Writer of rules in the calling thread's network namespace.
///
/// The caller runs these steps, with routes between them, and skips those without changes; see [`apply`](crate::netns::apply):
/// `dump` (only when the rules are unknown), `reject`, `translate`, `unreject`. Each step is one transaction per address family. After a
/// failed step the rules are unknown: they are dumped before the next attempt.
pub trait Backend: Send + Sync {
    /// Returns the name in conditions, logs and metrics.
    fn name(&self) -> &'static str;

    /// Returns true when the kernel of this node supports session affinity. Otherwise the backend gets no rules with
    /// [affinity](rules::PortRules::affinity).
    fn supports_affinity(&self) -> bool {
        true
    }

    /// Returns true when the backend may write into the node's own namespace, where other programs write at the same time.
    fn supports_host_netns(&self) -> bool {
        true
    }

    /// Returns true when the kernel verifies the [generation](crate::netlink::generation::expect) as part of each transaction.
    fn verifies_generation(&self) -> bool {
        false
    }

    /// Returns true when a read or write of all rules keeps them in the memory of this process: megabytes with a thousand Services. For a
    /// backend that runs programs, limiting concurrency saves nothing.
    fn buffers_whole_ruleset(&self) -> bool {
        true
    }

    /// Returns the memory for one address of a Service, one port and one endpoint.
    fn memory_per_item(&self) -> PerItem {
        // Measured are 300 to 500 bytes.
        PerItem {
            whole: 1 << 10,
            change: 0,
        }
    }

    /// Returns true when the namespace has tables or chains of this backend. Cheap: starts no program when there are none.
    fn is_present(&self) -> Result<bool, Error>;

    /// Reads the rules of this backend. Writes nothing. Rules of other backends are not seen.
    fn dump(&self) -> Result<KernelState, Error>;

    /// Returns true when the rules have a [generation](nftables::generation), which shows changes. Otherwise the rules have to be polled.
    fn reports_ruleset_changes(&self) -> bool {
        true
    }

    /// Returns a hash of the rules for a backend without a generation; it changes with the rules, also when another process changes them.
    /// Starts programs.
    fn fingerprint(&self) -> Option<u64> {
        None
    }

    /// Creates the hooks of both steps unless they [exist](Delta::base), and rejects packets to [`Delta::reject`] that are not translated;
    /// for a [rebuild](Delta::is_rebuild), all packets to [`Delta::rejected_meanwhile`].
    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Changes the translation of new flows to [`Delta::ports`]; for a rebuild, of all wanted ports.
    ///
    /// The hooks of the backend stay in place even without wanted rules: connection tracking ends with the last rule that uses it, and
    /// with it every live flow.
    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Stops rejecting packets to [`Delta::unreject`].
    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Removes all translation, hooks included.
    fn remove_translation(&self) -> Result<(), Error>;

    /// Removes all rejection, hooks included.
    fn remove_rejection(&self) -> Result<(), Error>;

    /// Removes the rules of other backends, which the node may have used before. Called when the rules of this backend are complete: while
    /// both exist, the first hook that translates a flow wins, and both have the same result.
    fn replace_others(&self) -> Result<(), Error> {
        Ok(())
    }
}
