//! Times of the changes that led to the content of slices.
//!
//! Pure.

use super::traced::Traced;
use k8s_openapi::jiff::Timestamp;
use process::traces::Traces;
use rules::Slice;

/// Slices that may change at once and are all measured.
const LIMIT: usize = 256;

/// A change of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// Its time, from the slice's annotation.
    pub(crate) at: Timestamp,
    /// The slice was not known before.
    pub(crate) is_new: bool,
    /// Set if the change is traced.
    pub(crate) traced: Option<Box<Traced>>,
}

/// Changes that were not taken yet. A longer list than [`LIMIT`] is a list of the API server.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    noted: Vec<Trigger>,
    traces: Traces,
}

impl Triggers {
    pub(super) fn trace(&mut self, traces: Traces) {
        self.traces = traces;
    }

    /// Records the change from `known` to `slice`, unless it has the time of the last change: then no time is known for this one.
    pub(super) fn note(&mut self, known: Option<&Slice>, slice: &Slice) {
        let before = known.and_then(|known| known.triggered);
        if let Some(at) = slice.triggered.filter(|at| before != Some(*at))
            && self.noted.len() < LIMIT
        {
            self.noted.push(Trigger {
                at,
                is_new: known.is_none(),
                traced: Traced::new(&self.traces, slice, at),
            });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Trigger> {
        std::mem::take(&mut self.noted)
    }
}
