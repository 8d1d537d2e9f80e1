//! Span of an attempt that writes the slices of a Service, in the trace of the change that led to it.
//!
//! Pure, but for the clock and the queue of spans. While traces are off, an attempt costs one comparison.

use crate::apply::WriteResult;
use crate::endpointslice::{Counts, is_written};
use crate::observe::Observed;
use api::ObjectName;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use process::error_chain;
use process::traces::{Span, Traces, attribute};

/// Name of the span.
const NAME: &str = "sync_endpointslices";

/// Starts the span at the time of the change, with an event at this moment: the attempt starts. `None`: traces are off, the trace is not
/// sampled, or the change has no time.
///
/// The root of the trace is the first attempt that succeeds. Changes of one second may have the same time; the later ones are its children.
pub(crate) fn start(
    traces: &Traces,
    observed: &Observed,
    triggered: Option<Timestamp>,
    counts: Counts,
) -> Option<Box<Span>> {
    if !traces.is_on() {
        return None;
    }
    let (triggered, service) = (triggered?, &observed.service.as_ref()?.service);
    let uid = service.metadata.uid.as_deref()?;
    let ids = traces.sampled(uid, triggered)?;
    let start = if is_written(&observed.slices, triggered) {
        Span::child
    } else {
        Span::root
    };
    let mut span = start(ids, NAME, triggered);
    span.event("attempt started");
    let ObjectName { namespace, name } = ObjectName::of(service);
    span.set(attribute::NAMESPACE, namespace);
    span.set(attribute::SERVICE, name);
    span.set(attribute::SERVICE_UID, uid.to_owned());
    if let Some(generation) = service.metadata.generation {
        span.set("multusservice.service.generation", generation);
    }
    span.count(attribute::PODS, observed.pods.len());
    span.count(attribute::ENDPOINTS, counts.endpoints);
    span.count("multusservice.endpoints.added", counts.added);
    span.count("multusservice.endpoints.removed", counts.removed);
    Some(Box::new(span))
}

/// Ends the span of an attempt.
pub(crate) fn end(traces: &Traces, span: Option<Box<Span>>, done: &WriteResult) {
    let Some(mut span) = span else {
        return;
    };
    let wrote = &done.slices;
    span.count("multusservice.endpointslices.created", wrote.created.len());
    span.count("multusservice.endpointslices.updated", wrote.updated.len());
    span.count("multusservice.endpointslices.deleted", wrote.deleted.len());
    let generation = |slice: &EndpointSlice| slice.metadata.generation;
    let generations = wrote.created.iter().chain(&wrote.updated).filter_map(generation);
    if let Some(generation) = generations.max() {
        span.set(attribute::SLICE_GENERATION, generation);
    }
    if let Some(error) = &done.error {
        span.fail(error_chain(error));
    }
    traces.end(*span);
}
