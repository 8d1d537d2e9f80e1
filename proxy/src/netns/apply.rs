//! Applies the wanted rules to the network namespace of one pod: the only writer of this program besides its reports.
//!
//! Writes: rules, routes and conntrack deletions in the calling thread's namespace. The order keeps a client from ever seeing a
//! packet to a ClusterIP leave untranslated: reject, route, translate; and in reverse order for removals; conntrack last.
//! A second apply writes nothing. A failure affects its own VIP, attachment or endpoint: everything else is applied.
//!
//! | failure | effect |
//! |---|---|
//! | an attachment's interface or address cannot be used | VIPs of that network and family: rejected |
//! | the route lookup of an endpoint fails | that endpoint: no flows |
//! | a VIP cannot be rejected | that VIP: neither routed nor translated |
//! | a route cannot be added | that VIP: rejected |
//! | a VIP cannot be translated | that VIP: rejected, or unchanged if its translation cannot be removed either |
//! | a route cannot be removed | that VIP: still rejected, although no Service has it |
//! | addresses, routes or rules cannot be read | the pod: nothing is written |

mod parts;
mod remove;
mod work;
mod write;

use crate::backend::{self, Backend, KnownRules};
pub use crate::netns::addresses::Absence;
pub(crate) use crate::netns::addresses::Addresses;
pub use crate::netns::conntrack::Pending;
use crate::netns::failure::{Absent, Failures};
use crate::netns::{conntrack, routes};
use api::NetworkRef;
pub use remove::remove;
use rules::{PodRules, Unreachable};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
pub use write::write;
pub(crate) use write::write_knowing;

/// Wanted state of a namespace, and the addresses that identify it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Rules.
    pub rules: PodRules,
    /// Addresses of the pod; the namespace must have one of them before anything is written.
    pub addresses: BTreeSet<IpAddr>,
    /// [`Applied::foreign_routes`] of the last apply, if no other process changed a route since: then routes are read only when a managed
    /// route changes. `None`: routes are read.
    pub foreign_routes: Option<BTreeSet<IpAddr>>,
}

/// Result of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Rules of the namespace now.
    pub rules: PodRules,
    /// Rules were written.
    pub written: bool,
    /// Sources that cannot be used at present: their VIPs are rejected.
    pub absent: Vec<Absent>,
    /// Failures.
    pub failures: Failures,
    /// The namespace has exactly `rules`. Otherwise its rules have to be read before the next write.
    pub is_exact: bool,
    /// VIPs to which the pod has a route of its own, which was not changed.
    pub foreign_routes: BTreeSet<IpAddr>,
    /// Parents on the node of macvlan or ipvlan interfaces, by network.
    pub parents: BTreeMap<NetworkRef, u32>,
    /// Endpoints without a route through the interface of their network: they get no flows.
    pub unreachable: BTreeSet<Unreachable>,
    /// Foreign or excess content of our tables and chains, which was replaced without being read.
    pub unread: BTreeSet<String>,
    /// Pending deletions of flows: see [`end_flows`].
    pub pending: Pending,
    /// Error of the deletion of conntrack entries; flows may continue to removed endpoints.
    pub conntrack: Option<String>,
}

impl Applied {
    /// Returns true when the namespace has exactly the wanted rules.
    pub fn is_complete(&self) -> bool {
        self.absent.is_empty() && self.failures.is_empty() && self.conntrack.is_none()
    }
}

/// Error of an apply. The namespace may have a part of the wanted rules: its rules are unknown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The addresses could not be read.
    #[error("failed to read the addresses of the network namespace")]
    Addresses(#[source] io::Error),
    /// The namespace does not belong to the pod.
    #[error("the network namespace has none of the pod's addresses; nothing is written")]
    NotThePod,
    /// Backend.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] routes::Error),
}

/// Applies `wanted` in the namespace of the calling thread. The driver runs the two steps separately: rules of all pods come first.
pub fn apply(backend: &dyn Backend, held: &KnownRules<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    let mut applied = write(backend, held, wanted)?;
    let ended = end_flows(&applied.pending, &applied.rules);
    applied.conntrack = ended.err().map(|error| error.to_string());
    Ok(applied)
}

/// Deletes flows that are stale under `rules`, the current rules of the calling thread's namespace. Takes milliseconds on a node with many
/// flows.
pub fn end_flows(pending: &Pending, rules: &PodRules) -> io::Result<()> {
    conntrack::clean(pending, rules)
}
