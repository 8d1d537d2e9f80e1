//! Work of a thread in a namespace.
//!
//! Writes: through `apply`, in the namespace of the calling thread.

use super::Error;
use crate::backend::{Backend, KnownRules};
use crate::netlink::generation::{generation, own_generation};
use crate::netns::apply::{Addresses, Wanted, write_knowing};
use crate::netns::memory::Share;
use crate::sync::netns_state::{RulesetVersion, WorkResult};
use rules::PodRules;
use std::sync::Arc;

/// Work of a thread in a namespace.
pub(super) struct Work {
    pub(super) held: KnownRules<PodRules>,
    /// Version that `held` describes; with another version the rules are unknown.
    pub(super) known: RulesetVersion,
    pub(super) wanted: Wanted,
    /// Links and addresses, if known.
    pub(super) addresses: Option<Arc<Addresses>>,
    pub(super) share: Share,
}

impl Work {
    pub(super) fn write(mut self, backend: &dyn Backend) -> Result<WorkResult, Error> {
        self.share.spend();
        let (known, before) = (self.known, generation());
        let is_known = (known.generation.is_none() || known.generation == before)
            && (known.fingerprint.is_none() || known.fingerprint == backend.fingerprint());
        if !is_known {
            self.held = KnownRules::Unknown;
            self.share.grow()?;
        }
        let (applied, addresses) = write_knowing(self.addresses, backend, &self.held, &self.wanted)?;
        let generation = generation();
        let is_as_before = is_known && !applied.written;
        let fingerprint = known
            .fingerprint
            .filter(|_| is_as_before)
            .or_else(|| backend.fingerprint());
        Ok(WorkResult {
            applied,
            addresses,
            ruleset: RulesetVersion {
                generation,
                fingerprint,
            },
            is_disturbed: generation != own_generation(before),
        })
    }
}
