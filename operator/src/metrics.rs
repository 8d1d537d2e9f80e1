//! Metrics of the operator: its reconciles, and what the status of the configuration reports.

mod snapshot;

pub(crate) use snapshot::Snapshot;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// All families. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconcile_duration: Histogram,
    reconcile_errors: Counter,
    current: Current,
}

/// What the last reconcile found; `None` without a configuration, and in a replica that does not lead.
#[derive(Clone, Debug, Default)]
struct Current(Arc<Mutex<Option<Snapshot>>>);

impl Default for Metrics {
    /// Metrics that are not served.
    fn default() -> Self {
        Self {
            // 10 ms to 82 s: a reconcile is cancelled after a minute.
            reconcile_duration: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            reconcile_errors: Counter::default(),
            current: Current::default(),
        }
    }
}

impl Metrics {
    /// Creates and registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(metrics.current.clone()));
        let registry = registry.sub_registry_with_prefix("multus_service_operator");
        registry.register(
            "reconcile_duration_seconds",
            "Duration of a reconcile of the configuration, also of a failed one",
            metrics.reconcile_duration.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciles of the configuration; each is retried",
            metrics.reconcile_errors.clone(),
        );
        metrics
    }

    /// [`Metrics::register`] with a series of every family, for docs/reference/metrics.md.
    pub fn reference(registry: &mut Registry) {
        Self::register(registry).observed(Some(Snapshot {
            conditions: vec![("Available".to_owned(), "True".to_owned())],
            versions: vec![("proxy", String::new())],
            rollout: vec![("proxy", "ready", 0)],
        }));
    }

    /// Records the end of a reconcile.
    pub(crate) fn reconciled(&self, took: Duration, is_error: bool) {
        self.reconcile_duration.observe(took.as_secs_f64());
        if is_error {
            self.reconcile_errors.inc();
        }
    }

    /// Replaces everything that the last reconcile found; `None` when the configuration is gone.
    pub(crate) fn observed(&self, snapshot: Option<Snapshot>) {
        *self.current.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

impl Collector for Current {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(snapshot) => snapshot.encode(encoder),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_deleted_configuration_disappear() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        metrics.observed(Some(Snapshot {
            conditions: vec![("Available".to_owned(), "True".to_owned())],
            versions: vec![("proxy", "1.0.0".to_owned())],
            rollout: vec![("proxy", "ready", 3)],
        }));
        for line in [
            r#"multus_service_condition{type="Available",status="True"} 1"#,
            r#"multus_service_condition{type="Available",status="False"} 0"#,
            r#"multus_service_condition{type="Available",status="Unknown"} 0"#,
            r#"multus_service_operand_version_info{operand="proxy",version="1.0.0"} 1"#,
            r#"multus_service_rollout_nodes{operand="proxy",state="ready"} 3"#,
        ] {
            assert!(text().contains(line), "{line} in {}", text());
        }
        metrics.observed(None);
        assert!(!text().contains("multus_service_condition"), "{}", text());
        assert!(!text().contains("multus_service_rollout"), "{}", text());
    }

    #[test]
    fn failed_reconciles_count_as_errors() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(5), false);
        metrics.reconciled(Duration::from_secs(61), true);
        assert_eq!(metrics.reconcile_errors.get(), 1);
    }
}
