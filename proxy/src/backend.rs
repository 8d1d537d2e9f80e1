//! What every way of writing rules into the kernel can do.
//!
//! Writes: rules in the calling thread's network namespace; the caller has entered the pod's. A backend decides nothing: it spells
//! [`PodRules`](rules::PodRules), writes only what differs, and never touches a chain, table or rule that is not ours.

pub mod detect;
pub mod iptables;
pub mod nftables;

use rules::{Delta, Family, KernelState};
use std::path::Path;

/// What a network namespace is known to hold of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownRules<T> {
    /// Nobody can have written into it: it is younger than this process.
    Nothing,
    /// It has to be read before anything is written: an earlier proxy was here, or a write failed halfway.
    #[default]
    Unknown,
    /// What we wrote last.
    Exactly(T),
}

/// Why rules were not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be run.
    #[error("failed to run {program:?}; is it in the image?")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program said no.
    #[error("{program} rejected: {stderr}")]
    Rejected {
        /// Its name.
        program: &'static str,
        /// What it printed, cut.
        stderr: String,
    },
    /// The program lists too much.
    #[error("cannot read what {program} lists")]
    Lists {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel said no.
    #[error("the kernel rejected to {action}")]
    Kernel {
        /// What it was asked.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing works on this node.
    #[error("no backend works on this node: {0}")]
    None(String),
}

/// Bytes for each thing that a pod shall have, twice over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerItem {
    /// When everything is read or written.
    pub whole: usize,
    /// When one of them changes.
    pub change: usize,
}

/// The families that the calling thread's namespace has. Without IPv6 there are no IPv6 VIPs.
fn families() -> impl Iterator<Item = Family> {
    let has_ipv6 = Path::new("/proc/thread-self/net/if_inet6").exists();
    let there = move |family: &Family| *family == Family::V4 || has_ipv6;
    Family::ALL.into_iter().filter(there)
}

/// A way of writing rules into the calling thread's network namespace.
///
/// The caller takes these steps, routes between them, and leaves out those that have nothing to do; see [`apply`](crate::netns::apply):
/// `dump` (only when it is not known what is there), `reject`, `translate`, `unreject`. Each step is one transaction per address
/// family. A step that fails leaves a namespace of which nothing is known: it is dumped before the next attempt.
pub trait Backend: Send + Sync {
    /// Its name, as conditions, logs and metrics show it.
    fn name(&self) -> &'static str;

    /// Whether it can keep a client with its endpoint on this node. Where it cannot, rules with
    /// [affinity](rules::PortRules::affinity) are not given to it.
    fn supports_affinity(&self) -> bool {
        true
    }

    /// Whether it may write into the node's own namespace, where other programs write at the same time.
    fn supports_host_netns(&self) -> bool {
        true
    }

    /// Whether everything that is in a namespace is in this process's memory while it is written, or read: megabytes with a thousand
    /// Services. Where programs do it there is nothing to be gained by going one by one.
    fn buffers_whole_ruleset(&self) -> bool {
        true
    }

    /// What one address of a Service, one port and one endpoint may cost in memory.
    fn memory_per_item(&self) -> PerItem {
        // Measured are 300 to 500 bytes.
        PerItem {
            whole: 1 << 10,
            change: 0,
        }
    }

    /// Whether anything of this backend's is there; a cheap look, which starts no program when there is not.
    fn is_present(&self) -> Result<bool, Error>;

    /// What is there of this backend's. Writes nothing. What another backend wrote is not seen.
    fn dump(&self) -> Result<KernelState, Error>;

    /// Whether its rules have a [generation](nftables::generation) by which changes are noticed. Where they have none they have to be looked for.
    fn reports_ruleset_changes(&self) -> bool {
        true
    }

    /// Where there is no generation: differs when the rules do, whoever wrote them. Starts programs.
    fn fingerprint(&self) -> Option<u64> {
        None
    }

    /// Makes the hooks of both steps where they are not [there](Delta::base), and rejects what nothing translates of
    /// [`Delta::reject`]; of [`Delta::rejected_meanwhile`] altogether when it [is a rebuild](Delta::is_rebuild).
    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Translates new flows to [`Delta::ports`] otherwise; everything that is wanted when it is a rebuild.
    ///
    /// What the backend needs for its own hooks stays in place even when nothing is wanted: connection tracking ends with the last
    /// rule that uses it, and with it every live flow.
    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Rejects [`Delta::unreject`] no more.
    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error>;

    /// Removes the translation of everything, hooks included.
    fn remove_translation(&self) -> Result<(), Error>;

    /// Removes the rejection of everything, hooks included.
    fn remove_rejection(&self) -> Result<(), Error>;

    /// Removes what other backends left, for the node may have had another before. Called once this one's rules are complete: while
    /// both are there the first hook that translates a flow wins, and either says the same.
    fn replace_others(&self) -> Result<(), Error> {
        Ok(())
    }
}
