//! What the proxy counts, as `/metrics` shows it.

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

/// The counters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    apply_duration: Family<Labels, Histogram>,
    apply_failures: Counter,
    programmed: Gauge,
    failing: Gauge,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            apply_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 18))
            }),
            apply_failures: Counter::default(),
            programmed: Gauge::default(),
            failing: Gauge::default(),
        };
        let Self {
            apply_duration,
            apply_failures,
            programmed,
            failing,
        } = &metrics;
        let registry = registry.sub_registry_with_prefix("multus_proxy");
        registry.register(
            "netns_apply_duration_seconds",
            "Time to bring a pod's network namespace to what is wanted",
            apply_duration.clone(),
        );
        registry.register(
            "netns_apply_failures",
            "Attempts that failed, first attempts at pods that are only starting among them",
            apply_failures.clone(),
        );
        registry.register("netns_programmed", "Pods that have rules", programmed.clone());
        registry.register(
            "netns_failing",
            "Pods whose rules could not be applied for longer than a pod takes to start",
            failing.clone(),
        );
        metrics
    }

    /// An attempt succeeded.
    pub fn applied(&self, backend: &str, took: Duration) {
        let labels = Labels {
            backend: backend.to_owned(),
        };
        self.apply_duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// An attempt failed.
    pub fn failed(&self) {
        self.apply_failures.inc();
    }

    /// How pods stand.
    pub fn pods(&self, programmed: usize, failing: usize) {
        self.programmed.set(i64::try_from(programmed).unwrap_or(i64::MAX));
        self.failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
    }
}
