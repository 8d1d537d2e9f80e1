//! Command-line arguments of traces.

use axum::http::Uri;
use clap::Args;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Arguments of the traces of changes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Trace options")]
pub struct TraceArgs {
    /// OTLP receiver (gRPC) of the traces of changes, such as http://127.0.0.1:4317 [default: no traces]
    #[arg(long, value_name = "URL")]
    pub tracing_endpoint: Option<Endpoint>,

    /// Number of traces to sample per million; a trace is sampled by all processes or by none
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000), value_name = "COUNT")]
    pub tracing_sampling_rate_per_million: u32,

    /// Certificate authorities of an https:// receiver, PEM; read again after a failed export
    #[arg(long, value_name = "FILE")]
    pub tracing_ca_file: Option<PathBuf>,
}

/// URL of an OTLP receiver: `http://` or `https://`, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

/// Error of a URL of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL such as http://127.0.0.1:4317 or https://otel-collector.observability.svc:4317")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint)?;
        let is_supported = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_only_host = uri.host().is_some_and(|host| !host.is_empty()) && matches!(uri.path(), "" | "/");
        (is_supported && has_only_host && uri.query().is_none())
            .then(|| Self(text.to_owned()))
            .ok_or(InvalidEndpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
