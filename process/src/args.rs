//! Command-line arguments that all three binaries share.

use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// How to reach the cluster, what to log, where to serve health and metrics.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Process options")]
pub struct ProcessArgs {
    /// Kubeconfig file of the cluster; without it (and without $KUBECONFIG) the service account of the pod is used
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What to log: error, warn, info, debug or trace, also per module ("info,proxy::sync=debug")
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// Address and port of /livez, /readyz and /metrics [default: the one the manifests use]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_bind_address: Option<SocketAddr>,
}

/// Shape of a log line.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log stores.
    Json,
}
