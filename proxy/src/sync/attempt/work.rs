//! Work of a thread in a namespace.
//!
//! Writes: through `apply`, in the namespace of the calling thread.

use super::Error;
use crate::backend::nftables::known_sets::{self, KnownSets};
use crate::backend::{self, Backend, KnownRules};
use crate::netlink::generation::{self, generation, own_generation};
use crate::netns::apply::{self, Addresses, Wanted, write_knowing};
use crate::netns::memory::Share;
use crate::sync::netns_state::{RulesetVersion, WorkResult};
use rules::PodRules;
use std::sync::Arc;

/// Work of a thread in a namespace.
pub(super) struct Work {
    pub(super) held: KnownRules<PodRules>,
    /// Version that `held` describes; with another version the rules are unknown.
    pub(super) known: RulesetVersion,
    /// Sets of that version.
    pub(super) sets: KnownSets,
    pub(super) wanted: Wanted,
    /// Links and addresses, if known.
    pub(super) addresses: Option<Arc<Addresses>>,
    pub(super) share: Share,
}

impl Work {
    pub(super) fn write(mut self, backend: &dyn Backend) -> Result<WorkResult, Error> {
        self.share.spend();
        let is_exact = matches!(self.held, KnownRules::Exactly(_)) && self.known.generation.is_some();
        if is_exact && backend.verifies_generation() {
            if let Some(result) = self.write_expecting(backend)? {
                return Ok(result);
            }
            generation::begin();
        }
        self.write_asking(backend)
    }

    /// Writes with the kernel's own check of the generation. `None`: it has another one, and nothing was written.
    fn write_expecting(&mut self, backend: &dyn Backend) -> Result<Option<WorkResult>, Error> {
        let known = self.known;
        generation::expect(known.generation);
        known_sets::begin(std::mem::take(&mut self.sets));
        let written = write_knowing(self.addresses.clone(), backend, &self.held, &self.wanted);
        let sets = known_sets::end();
        let (applied, addresses) = match written {
            Err(apply::Error::Backend(backend::Error::Stale)) => return Ok(None),
            written => written?,
        };
        let expected = generation::expected();
        if !generation::has_committed() && generation() != known.generation {
            return Ok(None);
        }
        Ok(Some(WorkResult {
            applied,
            addresses,
            ruleset: RulesetVersion {
                generation: expected.or_else(generation),
                fingerprint: known.fingerprint,
            },
            sets,
            is_repaired: false,
            is_disturbed: expected.is_none(),
        }))
    }

    /// Asks for the generation before and after the write.
    fn write_asking(mut self, backend: &dyn Backend) -> Result<WorkResult, Error> {
        let (known, before) = (self.known, generation());
        let is_known = (known.generation.is_none() || known.generation == before)
            && (known.fingerprint.is_none() || known.fingerprint == backend.fingerprint());
        let mut changed_by_others = KnownRules::Unknown;
        if !is_known {
            changed_by_others = std::mem::replace(&mut self.held, KnownRules::Unknown);
            self.share.grow()?;
        }
        let (applied, addresses) = write_knowing(self.addresses, backend, &self.held, &self.wanted)?;
        let generation = generation();
        let is_as_before = is_known && !applied.written;
        let fingerprint = known
            .fingerprint
            .filter(|_| is_as_before)
            .or_else(|| backend.fingerprint());
        // What was written is what this process had written before.
        let is_repaired = applied.written
            && matches!(&changed_by_others, KnownRules::Exactly(before) if *before == applied.rules);
        Ok(WorkResult {
            applied,
            addresses,
            ruleset: RulesetVersion {
                generation,
                fingerprint,
            },
            sets: KnownSets::default(),
            is_repaired,
            is_disturbed: generation != own_generation(before),
        })
    }
}
