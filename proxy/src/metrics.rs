//! Metrics of the proxy, served at `/metrics`: the names of kube-proxy with our prefix, and the state of this node's pods.

mod cause;

pub use cause::{Cause, Failing};

use crate::{netlink, netns};
use cause::CauseLabel;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    backend: &'static str,
}

/// Seconds since the epoch; 0: never.
type Timestamp = Gauge<f64, AtomicU64>;

/// Counters, gauges and histograms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    sync_duration: Family<Labels, Histogram>,
    sync_failures: Counter,
    last_sync: Timestamp,
    last_queued: Timestamp,
    network_programming: Histogram,
    sandbox_lookup: Histogram,
    programmed: Gauge,
    failing: Family<CauseLabel, Gauge>,
    rules_repaired: Counter,
}

impl Metrics {
    /// Creates and registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            sync_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 18))
            }),
            sync_failures: Counter::default(),
            last_sync: Timestamp::default(),
            last_queued: Timestamp::default(),
            network_programming: Histogram::new(network_programming_buckets()),
            // 1 ms to 16 s: the runtime is a process of the node.
            sandbox_lookup: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            programmed: Gauge::default(),
            failing: Family::default(),
            rules_repaired: Counter::default(),
        };
        // A series that appears with its first pod hides that change from alerts.
        metrics.pods(0, Failing::default());
        let registry = registry.sub_registry_with_prefix("multus_service_proxy");
        metrics.register_syncs(registry);
        metrics.register_pods(registry);
        metrics.register_kernel(registry);
        metrics
    }

    fn register_syncs(&self, registry: &mut Registry) {
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "Duration of a sync of the rules and routes of one pod",
            self.sync_duration.clone(),
        );
        registry.register(
            "sync_failures",
            "Failed syncs of pods, including those of pods that are still starting",
            self.sync_failures.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "Time of the last sync of a pod that succeeded",
            self.last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "Time of the last change of Services, EndpointSlices or pods that queued syncs, or that of the last sync when none is queued any more",
            self.last_queued.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "Time from the change that led to an EndpointSlice to the last write of its rules on this node",
            self.network_programming.clone(),
        );
    }

    fn register_pods(&self, registry: &mut Registry) {
        registry.register(
            "sandbox_lookup_duration_seconds",
            "Duration of the lookup of a pod's sandbox at the container runtime, also of a failed one",
            self.sandbox_lookup.clone(),
        );
        registry.register(
            "pods_programmed",
            "Pods of this node that have rules",
            self.programmed.clone(),
        );
        registry.register(
            "pods_failing",
            "Pods of this node whose sync has failed for longer than a pod takes to start, by cause",
            self.failing.clone(),
        );
    }

    fn register_kernel(&self, registry: &mut Registry) {
        registry.register(
            "rules_repaired",
            "Syncs that wrote rules of a pod again because another process had changed them",
            self.rules_repaired.clone(),
        );
        netns::counters::register(registry);
        netlink::errors::register(registry);
    }

    /// Records a successful sync.
    pub fn applied(&self, backend: &'static str, took: Duration) {
        self.sync_duration
            .get_or_create(&Labels { backend })
            .observe(took.as_secs_f64());
        self.last_sync.set(now());
    }

    /// Records a failed sync.
    pub fn failed(&self) {
        self.sync_failures.inc();
    }

    /// Records a sync that repaired rules.
    pub fn repaired(&self) {
        self.rules_repaired.inc();
    }

    /// Records a change that queued syncs.
    pub fn queued(&self) {
        self.last_queued.set(now());
    }

    /// Records that no sync is queued any more: the last change counts no more than the last sync.
    pub fn nothing_queued(&self) {
        self.last_queued
            .set(self.last_queued.get().min(self.last_sync.get()));
    }

    /// Returns true when a change is later than the last sync.
    #[cfg(test)]
    pub(crate) fn has_queued(&self) -> bool {
        self.last_queued.get() > self.last_sync.get()
    }

    /// Records that a change of a slice is written in all pods, `seconds` after it happened.
    pub fn programmed(&self, seconds: f64) {
        self.network_programming.observe(seconds);
    }

    /// Records a lookup of a sandbox.
    pub fn looked_up(&self, took: Duration) {
        self.sandbox_lookup.observe(took.as_secs_f64());
    }

    /// Sets the numbers of pods.
    pub fn pods(&self, programmed: usize, failing: Failing) {
        self.programmed.set(gauge(programmed));
        for (cause, pods) in failing.iter() {
            self.failing.get_or_create(&cause.label()).set(gauge(pods));
        }
    }
}

/// Buckets of kube-proxy, for comparisons: 250 ms to 5 minutes. Times of changes are whole seconds.
fn network_programming_buckets() -> impl Iterator<Item = f64> {
    linear_buckets(0.25, 0.25, 2)
        .chain(linear_buckets(1.0, 1.0, 59))
        .chain(linear_buckets(60.0, 5.0, 12))
        .chain(linear_buckets(120.0, 30.0, 7))
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn failing_pods_are_counted_by_cause_and_every_cause_has_a_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let line = |cause: &str, pods| format!("pods_failing{{cause=\"{cause}\"}} {pods}\n");
        for cause in Cause::ALL {
            let zero = line(cause.label().cause, 0);
            assert!(text(&registry).contains(&zero), "{zero}");
        }
        let mut failing = Failing::default();
        failing.add(Cause::Rules);
        failing.add(Cause::Rules);
        failing.add(Cause::Other);
        metrics.pods(7, failing);
        let text = text(&registry);
        for line in [line("rules", 2), line("other", 1), line("netns", 0)] {
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains("pods_programmed 7\n"), "{text}");
    }

    #[test]
    fn times_of_the_last_sync_and_of_the_last_change_are_served() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let before = now();
        metrics.queued();
        assert!((before..=now()).contains(&metrics.last_queued.get()));
        assert!(metrics.last_sync.get() < 1.0, "nothing was synced");
        metrics.applied("nftables", Duration::from_millis(3));
        assert!((before..=now()).contains(&metrics.last_sync.get()));
        let count = "multus_service_proxy_sync_proxy_rules_duration_seconds_count{backend=\"nftables\"} 1";
        assert!(text(&registry).contains(count), "{}", text(&registry));
    }
}
