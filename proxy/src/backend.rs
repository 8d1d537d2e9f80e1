//! What every way of writing rules into the kernel can do.
//!
//! Writes: rules in the calling thread's network namespace; the caller has entered the pod's. A backend decides nothing: it spells
//! [`PodRules`], writes only what differs, and never touches a chain, table or rule that is not ours.

pub mod iptables;

use rules::PodRules;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a network namespace is known to hold of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held<T> {
    /// Nobody can have written into it: it is younger than this process.
    Nothing,
    /// It has to be read before anything is written: an earlier proxy was here, or a write failed halfway.
    #[default]
    Unknown,
    /// What we wrote last.
    Exactly(T),
}

impl<T> Held<T> {
    /// Looks at what is held.
    pub fn map<U>(&self, f: impl FnOnce(&T) -> U) -> Held<U> {
        match self {
            Self::Nothing => Held::Nothing,
            Self::Unknown => Held::Unknown,
            Self::Exactly(held) => Held::Exactly(f(held)),
        }
    }
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
    #[error("{program} refused: {stderr}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What it printed, cut.
        stderr: String,
    },
    /// Nothing works on this node.
    #[error("no backend works on this node: {0}")]
    None(String),
}

/// A way of writing rules. Each call brings one namespace from what it holds to what is wanted, atomically per address family.
pub trait Backend: Send + Sync {
    /// Its name, as conditions, logs and metrics show it.
    fn name(&self) -> &'static str;

    /// Refuses new flows to exactly these VIPs when nothing translates them. Says whether anything was written.
    fn refuse(&self, held: &Held<BTreeSet<IpAddr>>, wanted: &BTreeSet<IpAddr>) -> Result<bool, Error>;

    /// Translates new flows exactly as `wanted` says. Says whether anything was written.
    ///
    /// What the backend needs for its own hooks stays in place even when nothing is wanted: connection tracking ends with the last
    /// rule that uses it, and with it every live flow.
    fn translate(&self, held: &Held<PodRules>, wanted: &PodRules) -> Result<bool, Error>;

    /// Removes the translation of everything, hooks included.
    fn remove_translation(&self) -> Result<(), Error>;

    /// Removes the refusal of everything, hooks included.
    fn remove_refusal(&self) -> Result<(), Error>;
}
