//! A bounded queue of ended spans and the task that exports them in batches.
//!
//! Writes: through [`Export`].

use super::exporter::{Export, Otlp};
use crate::error_chain;
use crate::metrics::{Loss, exported_spans, lost_spans};
use opentelemetry_sdk::trace::SpanData;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Spans that wait for the receiver: about 1 MB.
pub(super) const QUEUE: usize = 1024;

/// Most spans of one export.
pub(super) const BATCH: usize = 256;

/// Longest time that a span waits for others of its batch.
const DELAY: Duration = Duration::from_secs(1);

/// Time for the spans that wait when the process stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Exports queued spans beside the work; does nothing while traces are off.
pub struct TraceWriter(Option<SpanWriter<Otlp>>);

impl TraceWriter {
    pub(super) fn off() -> Self {
        Self(None)
    }

    pub(super) fn on(writer: SpanWriter<Otlp>) -> Self {
        Self(Some(writer))
    }

    /// Exports spans beside `work`, which holds the [`Traces`](super::Traces), and for 2 s after it.
    pub async fn run_beside<T>(self, work: impl Future<Output = T>) -> T {
        match self.0 {
            Some(writer) => writer.run_beside(work).await,
            None => work.await,
        }
    }
}

/// Exports queued spans.
pub(super) struct SpanWriter<E> {
    queue: mpsc::Receiver<SpanData>,
    export: E,
    /// The last failure, which is not logged again before a success or another one.
    failure: Option<String>,
}

/// Creates the queue.
pub(super) fn channel<E>(export: E) -> (mpsc::Sender<SpanData>, SpanWriter<E>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = SpanWriter {
        queue,
        export,
        failure: None,
    };
    (sender, writer)
}

impl<E: Export> SpanWriter<E> {
    /// Exports spans until every sender is gone and the queue is empty.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            // What is read stays in the batch when the time is over.
            let _ = timeout(DELAY, self.fill(&mut batch)).await;
            self.write(std::mem::take(&mut batch)).await;
        }
    }

    async fn run_beside<T>(self, work: impl Future<Output = T>) -> T {
        let mut writing = pin!(self.run());
        let mut work = pin!(work);
        tokio::select! {
            result = &mut work => {
                if timeout(DRAIN, writing).await.is_err() {
                    debug!("Dropped the spans that were not exported in time");
                }
                result
            }
            () = &mut writing => work.await,
        }
    }

    async fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < BATCH {
            let missing = BATCH - batch.len();
            if self.queue.recv_many(batch, missing).await == 0 {
                break;
            }
        }
    }

    async fn write(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        match self.export.export(batch).await {
            Ok(()) => {
                exported_spans().inc_by(spans);
                self.failure = None;
            }
            Err(error) => {
                lost_spans(Loss::ExportFailed).inc_by(spans);
                let text = error_chain(&error);
                if self.failure.as_ref() != Some(&text) {
                    warn!(error = text, spans, "Failed to export spans, dropped them");
                    self.failure = Some(text);
                }
            }
        }
    }
}
