//! What the trace of a change of a slice needs of the slice.
//!
//! Pure. While traces are off, a change costs one comparison and allocates nothing.

use api::ObjectName;
use k8s_openapi::jiff::Timestamp;
use process::traces::{ChangeIds, Traces};
use rules::Slice;

/// A slice whose change is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traced {
    /// Ids that the controller derives too.
    pub(crate) ids: ChangeIds,
    /// UID of the Service that owns the slice.
    pub(crate) service_uid: String,
    pub(crate) service: ObjectName,
    pub(crate) slice: String,
    pub(crate) generation: Option<i64>,
    pub(crate) endpoints: usize,
}

impl Traced {
    /// Returns the slice if its change is to be traced.
    #[inline]
    pub(super) fn new(traces: &Traces, slice: &Slice, triggered: Timestamp) -> Option<Box<Self>> {
        if traces.is_on() {
            Self::sampled(traces, slice, triggered)
        } else {
            None
        }
    }

    fn sampled(traces: &Traces, slice: &Slice, triggered: Timestamp) -> Option<Box<Self>> {
        let uid = slice.owners.first()?;
        let ids = traces.sampled(uid, triggered)?;
        Some(Box::new(Self {
            ids,
            service_uid: uid.clone(),
            service: slice.service.clone(),
            slice: slice.name.name.clone(),
            generation: slice.generation,
            endpoints: slice.endpoints.len(),
        }))
    }
}
