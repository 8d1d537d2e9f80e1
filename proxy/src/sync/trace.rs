//! Span of the rules of a slice on this node, in the trace of the change that led to the slice: from the event of the slice to the last
//! write of its rules in a pod of this node.
//!
//! Pure, but for the clock and the queue of spans.

use crate::index::Traced;
use k8s_openapi::jiff::Timestamp;
use process::traces::{Span, Traces, attribute};

/// Name of the span.
const NAME: &str = "sync_proxy_rules";

/// Starts the span: the event of the slice was received `now`.
pub(super) fn start(traced: Traced, now: Timestamp) -> Span {
    let Traced {
        ids,
        service_uid,
        service,
        slice,
        generation,
        endpoints,
    } = traced;
    let mut span = Span::child(ids, NAME, now);
    span.set(attribute::NAMESPACE, service.namespace);
    span.set(attribute::SERVICE, service.name);
    span.set(attribute::SERVICE_UID, service_uid);
    span.set("multusservice.endpointslice.name", slice);
    if let Some(generation) = generation {
        span.set(attribute::SLICE_GENERATION, generation);
    }
    span.count(attribute::ENDPOINTS, endpoints);
    span
}

/// Ends spans whose rules were written into `pods` pods.
pub(super) fn end(traces: &Traces, spans: Vec<Span>, pods: usize) {
    for mut span in spans {
        span.count(attribute::PODS, pods);
        traces.end(span);
    }
}
