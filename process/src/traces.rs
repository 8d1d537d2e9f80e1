//! Traces of changes: from the change of a Service or pod to the write of EndpointSlices, and on to the rules on every node.
//!
//! Controller and proxy both know two values of a change: the UID of the Service, and the time in the annotation
//! `endpoints.kubernetes.io/last-change-trigger-time` of the slice. All ids of the trace follow from them ([`ChangeIds`]), so the spans of
//! all processes join one trace without an annotation for it, and all processes sample the same traces.
//!
//! `tracing-opentelemetry` chooses ids itself; these spans are therefore built from the types of the OpenTelemetry SDK and exported by its
//! OTLP exporter. Spans of single processes, by `$OTEL_EXPORTER_OTLP_ENDPOINT`, are those of [`crate::logs`].
//!
//! Writes: OTLP over gRPC, in a task of its own. The work is never delayed: spans that find the queue full are dropped and counted.

mod args;
pub mod attribute;
mod exporter;
mod ids;
mod queue;
mod span;

pub use args::{Endpoint, TraceArgs};
pub use ids::ChangeIds;
pub use queue::TraceWriter;
pub use span::Span;

use crate::metrics::{Loss, lost_spans};
use exporter::Otlp;
use k8s_openapi::jiff::Timestamp;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Description of this process in every span.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `service.name`: the name of the binary.
    pub name: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`: the name of the pod.
    pub instance: &'a str,
    /// `k8s.node.name`, of a process that works for one node.
    pub node: Option<&'a str>,
}

/// Handle of the traces. Cheap to clone; without an endpoint all it does is one comparison.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Enabled>>);

#[derive(Debug)]
struct Enabled {
    queue: mpsc::Sender<SpanData>,
    sampling_rate_per_million: u32,
    scope: InstrumentationScope,
}

impl Traces {
    /// Returns true if an endpoint is set.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the ids of the trace of a change, unless traces are off or the trace is not sampled.
    #[inline]
    pub fn sampled(&self, service_uid: &str, triggered: Timestamp) -> Option<ChangeIds> {
        let enabled = self.0.as_deref()?;
        let ids = ChangeIds::new(service_uid, triggered);
        ids.are_sampled(enabled.sampling_rate_per_million).then_some(ids)
    }

    /// Ends a span now and queues it for export.
    pub fn end(&self, span: Span) {
        let Some(enabled) = self.0.as_deref() else {
            return;
        };
        if enabled.queue.try_send(span.finish(&enabled.scope)).is_err() {
            lost_spans(Loss::QueueFull).inc();
        }
    }
}

/// Sets up traces; run the writer beside the work. Neither fails: an unreachable receiver or a missing certificate is logged, and costs spans
/// only.
pub fn start(args: &TraceArgs, source: Source<'_>) -> (Traces, TraceWriter) {
    let Some(endpoint) = &args.tracing_endpoint else {
        return (Traces::default(), TraceWriter::off());
    };
    let node = source
        .node
        .map(|node| KeyValue::new("k8s.node.name", node.to_owned()));
    let resource = Resource::builder()
        .with_service_name(source.name)
        .with_attribute(KeyValue::new("service.version", source.version))
        .with_attribute(KeyValue::new("service.instance.id", source.instance.to_owned()))
        .with_attributes(node)
        .build();
    let export = Otlp::new(endpoint.clone(), args.tracing_ca_file.clone(), resource);
    let (queue, writer) = queue::channel(export);
    let enabled = Enabled {
        queue,
        sampling_rate_per_million: args.tracing_sampling_rate_per_million,
        scope: InstrumentationScope::builder("multus-service")
            .with_version(source.version)
            .build(),
    };
    (Traces(Some(Arc::new(enabled))), TraceWriter::on(writer))
}

#[cfg(test)]
mod tests;
