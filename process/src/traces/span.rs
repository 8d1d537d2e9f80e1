//! A span of the trace of a change, from its start to its export.

use super::ChangeIds;
use k8s_openapi::jiff::Timestamp;
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use std::time::SystemTime;

/// A span that has not ended.
#[derive(Clone, Debug)]
pub struct Span {
    ids: ChangeIds,
    id: SpanId,
    /// Invalid for the root.
    parent: SpanId,
    name: &'static str,
    start: SystemTime,
    attributes: Vec<KeyValue>,
    events: SpanEvents,
    status: Status,
}

impl Span {
    /// Starts the root of a trace, at the time of the change. At most one per trace.
    pub fn root(ids: ChangeIds, name: &'static str, start: Timestamp) -> Self {
        Self::new(ids, ids.root, SpanId::INVALID, name, start)
    }

    /// Starts a child of the root, which may be the span of another process.
    pub fn child(ids: ChangeIds, name: &'static str, start: Timestamp) -> Self {
        let id = RandomIdGenerator::default().new_span_id();
        Self::new(ids, id, ids.root, name, start)
    }

    fn new(ids: ChangeIds, id: SpanId, parent: SpanId, name: &'static str, start: Timestamp) -> Self {
        Self {
            ids,
            id,
            parent,
            name,
            start: start.into(),
            attributes: Vec::new(),
            events: SpanEvents::default(),
            status: Status::Unset,
        }
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    /// Sets an attribute to a number of objects.
    pub fn count(&mut self, key: &'static str, count: usize) {
        self.set(key, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Adds an event at this moment.
    pub fn event(&mut self, name: &'static str) {
        let event = Event::new(name, SystemTime::now(), Vec::new(), 0);
        self.events.events.push(event);
    }

    /// Marks the work of the span as failed. A root becomes a child: the root is the span of the attempt that succeeds.
    pub fn fail(&mut self, error: String) {
        self.status = Status::error(error);
        if self.parent == SpanId::INVALID {
            self.parent = self.ids.root;
            self.id = RandomIdGenerator::default().new_span_id();
        }
    }

    /// Ends the span now. A clock that was set back ends it at its start.
    pub(super) fn finish(self, scope: &InstrumentationScope) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                self.ids.trace,
                self.id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: self.parent,
            parent_span_is_remote: self.parent != SpanId::INVALID,
            span_kind: SpanKind::Internal,
            name: self.name.into(),
            start_time: self.start,
            end_time: SystemTime::now().max(self.start),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: self.events,
            links: SpanLinks::default(),
            status: self.status,
            instrumentation_scope: scope.clone(),
        }
    }
}
