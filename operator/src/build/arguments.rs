//! Command-line arguments of the operands.
//!
//! Pure.

use api::config::{Backend, LogLevel};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// `--log-level` for a process whose own crates are `own`.
pub(super) fn log_level(level: LogLevel, own: &[&str]) -> String {
    let ours_at = |level: &str| {
        own.iter().fold("info".to_owned(), |filter, name| {
            format!("{filter},{name}={level}")
        })
    };
    let filter = match level {
        LogLevel::Normal => "info".to_owned(),
        LogLevel::Debug => ours_at("debug"),
        LogLevel::Trace => ours_at("trace"),
        LogLevel::TraceAll => "trace".to_owned(),
    };
    format!("--log-level={filter}")
}

/// `--backend` of the proxy, spelled as in the configuration.
pub(super) fn backend(backend: Backend) -> String {
    let name = match backend {
        Backend::Auto => "Auto",
        Backend::NfTables => "NFTables",
        Backend::IpTables => "IPTables",
    };
    format!("--backend={name}")
}

/// The only container of an operand.
pub(super) fn container(pod: Option<&mut PodSpec>) -> &mut Container {
    pod.and_then(|pod| pod.containers.first_mut())
        .expect("the manifests have one container each: a test says so")
}
