//! Command-line arguments of the operands.
//!
//! Pure.

use crate::service_ranges::ServiceRanges;
use crate::validate::{Networks, RuntimeSocket};
use api::config::{Backend, LogLevel};
use std::collections::{BTreeMap, BTreeSet};

/// Where the manifests mount the Secret of the certificate.
const METRICS_TLS: &str = "/etc/multus-service/metrics-tls";

/// `--log-level` for a process with the crates `own`.
pub(super) fn log_level(level: LogLevel, own: &[&str]) -> String {
    format!("--log-level={}", filter(level, own))
}

/// The log filter of a process with the crates `own`.
pub fn filter(level: LogLevel, own: &[&str]) -> String {
    let ours_at = |level: &str| {
        own.iter().fold("info".to_owned(), |filter, name| {
            format!("{filter},{name}={level}")
        })
    };
    match level {
        LogLevel::Normal => "info".to_owned(),
        LogLevel::Debug => ours_at("debug"),
        LogLevel::Trace => ours_at("trace"),
        LogLevel::TraceAll => "trace".to_owned(),
    }
}

/// `--backend` of the proxy, in the form of the configuration.
pub(super) fn backend(backend: Backend) -> String {
    let name = match backend {
        Backend::Auto => "Auto",
        Backend::NfTables => "NFTables",
        Backend::IpTables => "IPTables",
    };
    format!("--backend={name}")
}

/// Networks that a Service may reference.
pub(super) fn networks(networks: &Networks) -> [String; 2] {
    let Networks {
        isolated,
        global_namespaces,
    } = networks;
    let names = global_namespaces.iter().map(String::as_str).collect::<Vec<_>>();
    [
        format!("--network-namespace-isolation={isolated}"),
        format!("--global-namespaces={}", names.join(",")),
    ]
}

/// The Service CIDRs, unless controller and proxy watch them or the cluster does not publish them.
pub(super) fn service_cidrs(ranges: &ServiceRanges) -> Option<String> {
    let ServiceRanges::Given(ranges) = ranges else {
        return None;
    };
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    Some(format!("--service-cidrs={}", ranges.join(",")))
}

/// Networks that nodes reach themselves, and their interfaces.
pub(super) fn host_networks(networks: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    networks
        .iter()
        .map(|(network, interface)| format!("--host-network={network}={interface}"))
}

/// Namespaces of the archived multus-service proxy.
pub(super) fn legacy_namespaces(namespaces: &BTreeSet<String>) -> String {
    let names: Vec<_> = namespaces.iter().map(String::as_str).collect();
    format!("--legacy-proxy-namespaces={}", names.join(","))
}

/// The certificate of the metrics, in the volume `metrics-tls` of the manifests.
pub(super) fn metrics_certificate() -> [String; 2] {
    [
        format!("--tls-cert-file={METRICS_TLS}/tls.crt"),
        format!("--tls-private-key-file={METRICS_TLS}/tls.key"),
    ]
}

/// Port of the metrics on the node.
pub(super) fn metrics_port(port: u16) -> String {
    format!("--metrics-port={port}")
}

/// Socket of the container runtime.
pub(super) fn runtime(socket: &RuntimeSocket) -> String {
    format!("--container-runtime-endpoint={}", socket.path)
}
