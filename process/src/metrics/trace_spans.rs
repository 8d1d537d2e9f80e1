//! Spans of traces: exported and lost ones.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::LazyLock;

/// Reason why spans were lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// The queue was full: the receiver is slow or away.
    QueueFull,
    /// The export failed.
    ExportFailed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

static EXPORTED: LazyLock<Counter> = LazyLock::new(Counter::default);
static LOST: LazyLock<Family<Labels, Counter>> = LazyLock::new(Family::default);

pub(super) fn register(registry: &mut Registry) {
    for loss in [Loss::QueueFull, Loss::ExportFailed] {
        drop(lost_spans(loss));
    }
    registry.register(
        "trace_spans_exported",
        "Spans of traces that the receiver accepted; 0 while spec.tracing is not set",
        EXPORTED.clone(),
    );
    registry.register(
        "trace_spans_lost",
        "Spans of traces that did not reach the receiver; a full queue or a failed export delays nothing else",
        LOST.clone(),
    );
}

/// Returns the counter of exported spans.
pub(crate) fn exported_spans() -> &'static Counter {
    &EXPORTED
}

/// Returns the counter of lost spans.
pub(crate) fn lost_spans(loss: Loss) -> Counter {
    let reason = match loss {
        Loss::QueueFull => "queue_full",
        Loss::ExportFailed => "export_failed",
    };
    LOST.get_or_create(&Labels { reason }).clone()
}
