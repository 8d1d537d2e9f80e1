//! Network namespace of a pod, and what it is known to contain.
//!
//! Pure, but for the clock.

use crate::backend::KnownRules;
use crate::backend::nftables::known_sets::KnownSets;
use crate::container_runtime::Sandbox;
use crate::netlink::kept_sockets::SocketLease;
use crate::netlink::monitor::NamespaceId;
use crate::netns::apply::{Addresses, Applied};
use rules::PodRules;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Network namespace of a pod, and what it is known to contain.
#[derive(Debug, Default)]
pub(super) struct NetnsState {
    /// `None`: to be requested from the container runtime.
    pub(super) sandbox: Option<Sandbox>,
    /// Id of the sandbox that `held` describes.
    id: Option<String>,
    pub(super) held: KnownRules<PodRules>,
    /// Foreign routes of the last attempt; `None`: routes have to be read.
    foreign_routes: Option<BTreeSet<IpAddr>>,
    /// Links and addresses of the last attempt; `None`: they have to be read.
    addresses: Option<Arc<Addresses>>,
    /// Time of the last check of routes.
    routes_checked_at: Option<Instant>,
    /// Namespace id for the netlink monitor, if it runs.
    pub(super) nsid: Option<NamespaceId>,
    /// Version of the rules after the last write.
    ruleset: RulesetVersion,
    /// Sets of that version.
    sets: KnownSets,
    /// Another process wrote at the same time: its transactions cannot be distinguished from ours afterwards.
    pub(super) is_disturbed: bool,
    /// The last attempt wrote nothing but rules that another process had changed.
    pub(super) is_repaired: bool,
    /// Duration of the last attempt in the namespace.
    pub(super) took: Duration,
    /// Lease of the sockets that are kept open in the namespace.
    lease: Option<SocketLease>,
    /// The pod is deleted: its sandbox may belong to another pod by now.
    pub(super) is_abandoned: Arc<AtomicBool>,
}

/// Version of the rules, by which a change is noticed without reading them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RulesetVersion {
    /// Generation of the nftables ruleset.
    pub(super) generation: Option<u32>,
    /// See [`Backend::fingerprint`](crate::backend::Backend::fingerprint).
    pub(super) fingerprint: Option<u64>,
}

/// Result of the work in a namespace.
pub(super) struct WorkResult {
    pub(super) applied: Applied,
    pub(super) addresses: Arc<Addresses>,
    pub(super) ruleset: RulesetVersion,
    pub(super) sets: KnownSets,
    pub(super) is_repaired: bool,
    pub(super) is_disturbed: bool,
}

impl NetnsState {
    /// Returns the id of the sandbox of the last attempt.
    pub(super) fn sandbox_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns true when this process never wrote into the namespace.
    pub(super) fn is_untouched(&self) -> bool {
        self.id.is_none()
    }

    /// Makes the next attempt read routes, links and addresses from the kernel.
    pub(super) fn forget_routes(&mut self) {
        self.foreign_routes = None;
        self.addresses = None;
    }

    /// Makes the next attempt read them if the last comparison with the kernel is older than `age`.
    pub(super) fn forget_routes_after(&mut self, age: Duration) {
        if self
            .routes_checked_at
            .is_none_or(|checked| checked.elapsed() > age)
        {
            self.forget_routes();
        }
    }

    /// Records that anything in the namespace may have changed. Rules with a generation stay known, since the generation shows a change:
    /// reading the rules of every pod after an overrun would take seconds.
    pub(super) fn invalidate(&mut self) {
        if self.ruleset.generation.is_none() {
            self.held = KnownRules::Unknown;
        }
    }

    /// Returns the path of the namespace and the generation of its rules at the last attempt; `None`: unknown.
    pub(super) fn generation(&self) -> Option<(PathBuf, u32)> {
        let sandbox = self.sandbox.as_ref()?;
        Some((sandbox.netns.clone(), self.ruleset.generation?))
    }

    /// Switches to a recreated sandbox: its namespace contains no rules unless another process wrote into it before.
    pub(super) fn enter_sandbox(&mut self, sandbox: &Sandbox, may_hold: bool) {
        if self.id.as_ref() != Some(&sandbox.id) {
            self.id = Some(sandbox.id.clone());
            self.held = if may_hold {
                KnownRules::Unknown
            } else {
                KnownRules::Nothing
            };
            self.nsid = None;
            self.forget_routes();
        }
    }
}

/// What is known of a namespace before work in it.
pub(super) struct Known {
    pub(super) held: KnownRules<PodRules>,
    /// Version that `held` describes; with another version the rules are unknown.
    pub(super) ruleset: RulesetVersion,
    /// Sets of that version.
    pub(super) sets: KnownSets,
    /// Links and addresses, if known.
    pub(super) addresses: Option<Arc<Addresses>>,
    /// Foreign routes, if known.
    pub(super) foreign_routes: Option<BTreeSet<IpAddr>>,
}

/// Work in the namespace.
impl NetnsState {
    /// Returns the lease of the sockets that are kept open in the namespace.
    pub(super) fn lease(&mut self) -> &mut Option<SocketLease> {
        &mut self.lease
    }

    /// Takes what is known: nothing is until the work is recorded. `nsid` is the current id of the namespace, if it is monitored;
    /// `is_the_same`: its sockets were open all the time, so that no notification was lost.
    pub(super) fn take_known(&mut self, nsid: Option<NamespaceId>, is_the_same: bool) -> Known {
        let foreign_routes = self.foreign_routes.take();
        if foreign_routes.is_none() {
            self.routes_checked_at = Some(Instant::now());
        }
        (self.is_disturbed, self.is_repaired, self.nsid) = (false, false, nsid);
        // Links and addresses without notifications are read each time.
        let is_monitored = nsid.is_some() && is_the_same && foreign_routes.is_some();
        Known {
            held: std::mem::take(&mut self.held),
            ruleset: std::mem::take(&mut self.ruleset),
            sets: std::mem::take(&mut self.sets),
            addresses: self.addresses.take().filter(|_| is_monitored),
            foreign_routes,
        }
    }

    /// Records the result of work; returns what was applied.
    pub(super) fn record(&mut self, result: WorkResult) -> Applied {
        let WorkResult {
            applied,
            addresses,
            ruleset,
            sets,
            is_repaired,
            is_disturbed,
        } = result;
        self.ruleset = ruleset;
        self.is_repaired = is_repaired;
        self.is_disturbed = is_disturbed;
        if !is_disturbed && applied.is_exact {
            self.held = KnownRules::Exactly(applied.rules.clone());
            self.sets = sets;
            if applied.failures.is_empty() {
                self.foreign_routes = Some(applied.foreign_routes.clone());
                let are_usable = applied.absent.is_empty() && addresses.are_few();
                self.addresses = Some(addresses).filter(|_| are_usable);
            }
        }
        applied
    }
}

#[cfg(test)]
impl NetnsState {
    /// Returns a namespace whose routes were read.
    pub(super) fn with_routes() -> Self {
        Self {
            foreign_routes: Some(BTreeSet::new()),
            ..Self::default()
        }
    }

    /// Returns true when the next attempt does not read routes.
    pub(super) fn knows_routes(&self) -> bool {
        self.foreign_routes.is_some()
    }
}
