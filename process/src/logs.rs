//! Log lines and traces.
//!
//! Writes to standard error. When `OTEL_EXPORTER_OTLP_ENDPOINT` is set (OpenTelemetry's own variable), spans also go there by OTLP.

use crate::args::{LogFormat, ProcessArgs};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Environment variable that switches trace export on.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text of `--log-level`.
    #[error("--log-level {filter:?} is not a log filter; write error, warn, info, debug or trace")]
    Filter {
        /// The text given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The OTLP endpoint cannot be used.
    #[error("traces cannot be sent to ${OTLP_ENDPOINT}")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Another part of the process has set up logs already.
    #[error("logs are set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps trace export going; spans still in memory are sent when it is dropped.
#[derive(Debug)]
#[must_use = "spans are lost when this is dropped early"]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "Lost spans at exit");
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
    tracing_subscriber::registry()
        .with(lines(args.log_format))
        .with(traces)
        .with(filter)
        .try_init()?;
    Ok(Telemetry(provider))
}

fn lines(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
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
