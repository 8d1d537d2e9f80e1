//! Times of the changes that led to the content of slices.
//!
//! Pure.

use k8s_openapi::jiff::Timestamp;
use rules::Slice;

/// Slices that may change at once and are all measured.
const LIMIT: usize = 256;

/// A change of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// Its time, from the slice's annotation.
    pub(crate) at: Timestamp,
    /// The slice was not known before.
    pub(crate) is_new: bool,
}

/// Changes that were not taken yet. A longer list than [`LIMIT`] is a list of the API server.
#[derive(Debug, Default)]
pub(super) struct Triggers(Vec<Trigger>);

impl Triggers {
    /// Records the change from `known` to `slice`, unless it has the time of the last change: then no time is known for this one.
    pub(super) fn note(&mut self, known: Option<&Slice>, slice: &Slice) {
        let before = known.and_then(|known| known.triggered);
        if let Some(at) = slice.triggered.filter(|at| before != Some(*at))
            && self.0.len() < LIMIT
        {
            let is_new = known.is_none();
            self.0.push(Trigger { at, is_new });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Trigger> {
        std::mem::take(&mut self.0)
    }
}
