//! Log lines and traces.
//!
//! Writes: standard error, from a thread of its own. Its reader, the container runtime, may hang, and a full pipe must delay log lines
//! and nothing else. Lines that do not fit the buffer are dropped. When `OTEL_EXPORTER_OTLP_ENDPOINT` is set (OpenTelemetry's own variable), spans also go there by OTLP.

use crate::args::{LogFormat, ProcessArgs};
use crate::error_chain;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Environment variable that enables trace export.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Lines buffered for a slow reader.
const BUFFERED_LINES: usize = 4096;

/// Error of [`init`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid `--log-level`.
    #[error("invalid --log-level {filter:?}; use error, warn, info, debug or trace")]
    Filter {
        /// The value.
        filter: String,
        /// Error of the parser.
        #[source]
        source: ParseError,
    },
    /// Failed to set up the OTLP exporter.
    #[error("failed to set up the export of traces to ${OTLP_ENDPOINT}")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Logs are set up already.
    #[error("logs are set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Guard of logs and trace export; writes buffered lines and spans when it is dropped.
#[must_use = "lines and spans are lost when this is dropped early"]
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    filter: LogFilter,
    _lines: WorkerGuard,
}

impl Telemetry {
    /// Returns the handle of the log filter.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }
}

/// Handle to change the log filter of a running process.
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl LogFilter {
    /// Sets the filter, in the syntax of `--log-level`. An invalid filter changes nothing and is logged.
    pub fn set(&self, filter: &str) {
        let changed = EnvFilter::try_new(filter).map(|filter| (self.0)(filter));
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %error_chain(&error), filter, "Failed to change the log filter");
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), filter, "Ignored an invalid log filter");
            }
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.tracer.take().map(|provider| provider.shutdown()) {
            tracing::warn!(error = %error_chain(&error), "Lost spans at exit");
        }
    }
}

/// Sets up logs for the whole process. Call once, inside a tokio runtime.
pub fn init(name: &'static str, args: &ProcessArgs) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_new(&args.log_level).map_err(|source| Error::Filter {
        filter: args.log_level.clone(),
        source,
    })?;
    let provider = tracer_provider(name)?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(name)));
    let (writer, guard) = non_blocking(std::io::stderr());
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(lines(args.log_format, writer))
        .with(traces)
        .with(filter)
        .try_init()?;
    Ok(Telemetry {
        tracer: provider,
        filter: LogFilter(Arc::new(move |filter| handle.reload(filter))),
        _lines: guard,
    })
}

/// A writer that never blocks.
fn non_blocking(to: impl std::io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name("logs")
        .finish(to)
}

fn lines(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn tracer_provider(name: &'static str) -> Result<Option<SdkTracerProvider>, Error> {
    if std::env::var_os(OTLP_ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    let resource = Resource::builder().with_service_name(name).build();
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    #[test]
    fn a_reader_that_hangs_does_not_block_logging() {
        let (reader, pipe) = std::io::pipe().unwrap();
        let (mut writer, guard) = non_blocking(pipe);
        let line = [b'x'; 1000];
        let began = Instant::now();
        // Far more than the pipe and the buffer hold.
        for _ in 0..3 * BUFFERED_LINES {
            writer.write_all(&line).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(writer.error_counter().dropped_lines() > 0);
        // Lets the thread end.
        drop(reader);
        drop(guard);
    }
}
