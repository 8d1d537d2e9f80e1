//! Metrics that every process has: its build, its use of the machine, its watches, its API requests and its spans.
//!
//! Counters of watches and API requests are global, as in client-go: a process has one API server, and a watch is begun far from the
//! registry.

mod api_requests;
mod process_collector;
mod trace_spans;
mod watch_restarts;

pub(crate) use api_requests::CountRequests;
pub(crate) use trace_spans::{Loss, exported_spans, lost_spans};
pub(crate) use watch_restarts::watch_restarts;

use process_collector::ProcessCollector;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers the metrics that every process has; [`run`](crate::run) does so. `binary`, `version` and `commit` are those of the identity.
pub fn register(registry: &mut Registry, binary: &'static str, version: &'static str, commit: &'static str) {
    registry.register_collector(Box::new(ProcessCollector::new()));
    let registry = registry.sub_registry_with_prefix("multus_service");
    let component = binary.strip_prefix("multus-service-").unwrap_or(binary);
    let build = vec![("component", component), ("version", version), ("commit", commit)];
    registry.register("build", "Version of this process", Info::new(build));
    api_requests::register(registry);
    watch_restarts::register(registry);
    trace_spans::register(registry);
}

/// [`register`] with a series of every family, for docs/reference/metrics.md.
pub fn reference(registry: &mut Registry) {
    register(registry, "", "", "");
    watch_restarts("/api/v1/pods");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `/metrics` serves.
    fn text() -> String {
        let mut registry = Registry::default();
        register(&mut registry, "multus-service-proxy", "1.2.3", "0123abc");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_process_states_its_build() {
        let want = r#"multus_service_build_info{component="proxy",version="1.2.3",commit="0123abc"} 1"#;
        assert!(text().contains(want), "{}", text());
    }

    #[test]
    fn process_metrics_have_the_names_and_values_of_other_clients() {
        let text = text();
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in {text}"))
                .parse()
                .unwrap()
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!((now - 3600.0..now + 1.0).contains(&started), "{started} at {now}");
        assert!(value("process_cpu_seconds_total") < 3600.0);
        let resident = value("process_resident_memory_bytes");
        assert!(resident > 1e5 && resident <= value("process_virtual_memory_bytes"));
        let open = value("process_open_fds");
        assert!(open >= 3.0 && open <= value("process_max_fds"), "{open}");
    }
}
