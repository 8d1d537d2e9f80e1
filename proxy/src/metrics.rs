//! Metrics of the proxy, served at `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    backend: String,
}

/// Counters, gauges and histograms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    sync_duration: Family<Labels, Histogram>,
    sync_failures: Counter,
    programmed: Gauge,
    failing: Gauge,
}

impl Metrics {
    /// Creates and registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            sync_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 18))
            }),
            sync_failures: Counter::default(),
            programmed: Gauge::default(),
            failing: Gauge::default(),
        };
        let Self {
            sync_duration,
            sync_failures,
            programmed,
            failing,
        } = &metrics;
        let registry = registry.sub_registry_with_prefix("multus_service_proxy");
        registry.register(
            "sync_duration_seconds",
            "Duration of a sync of the rules and routes of one pod",
            sync_duration.clone(),
        );
        registry.register(
            "sync_failures",
            "Failed syncs of pods, including those of pods that are still starting",
            sync_failures.clone(),
        );
        registry.register(
            "pods_programmed",
            "Pods of this node that have rules",
            programmed.clone(),
        );
        registry.register(
            "pods_failing",
            "Pods of this node whose sync has failed for longer than a pod takes to start",
            failing.clone(),
        );
        metrics
    }

    /// Records a successful sync.
    pub fn applied(&self, backend: &str, took: Duration) {
        let labels = Labels {
            backend: backend.to_owned(),
        };
        self.sync_duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Records a failed sync.
    pub fn failed(&self) {
        self.sync_failures.inc();
    }

    /// Sets the numbers of pods.
    pub fn pods(&self, programmed: usize, failing: usize) {
        self.programmed.set(i64::try_from(programmed).unwrap_or(i64::MAX));
        self.failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
    }
}
