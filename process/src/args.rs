//! Command-line arguments that all three binaries share.

use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Arguments for the connection to the cluster, logs, and health and metrics.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Process options")]
pub struct ProcessArgs {
    /// Path to a kubeconfig file [default: the in-cluster configuration]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Format of log lines
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// Log filter: error, warn, info, debug or trace, also per module ("info,proxy::sync=debug")
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// IP address and port to serve /livez and /readyz on, without TLS [default: the port in the manifests]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub health_probe_bind_address: Option<SocketAddr>,

    /// IP address and port to serve /metrics on, with TLS and authorization [default: the port in the manifests]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_bind_address: Option<SocketAddr>,

    /// Certificate of /metrics, PEM; read again when it changes [default: self-made, also while there is no such file]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
}

/// Format of log lines.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text.
    #[default]
    Text,
    /// One JSON object per line, for log stores.
    Json,
}
