//! Metrics: the families of Kubernetes' EndpointSlice controller, under their names with our prefix, and those of this controller.
//!
//! Pure.

pub(crate) mod sample;
mod verdict;

pub use verdict::Verdict;

pub use crate::endpointslice::Counts;
use api::ObjectName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use verdict::VerdictLabel;

/// Label `operation`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Operation {
    /// create, update or delete.
    pub operation: &'static str,
}

/// Label `result`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SyncResult {
    /// success, stale or error.
    pub result: &'static str,
}

/// Label `topology`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Topology {
    /// Auto or Disabled.
    pub topology: &'static str,
    /// `spec.trafficDistribution` if it is in effect.
    pub traffic_distribution: String,
}

/// Label `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventReason {
    /// Reason of the Event.
    pub reason: &'static str,
}

/// All families. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `multus_service_controller_endpointslice_endpoints_added_per_sync`
    pub endpoints_added: Histogram,
    /// `multus_service_controller_endpointslice_endpoints_removed_per_sync`
    pub endpoints_removed: Histogram,
    endpoints_desired: Gauge,
    num_slices: Gauge,
    desired_slices: Gauge,
    /// `multus_service_controller_endpointslice_changes{operation}`
    pub changes: Family<Operation, Counter>,
    /// `multus_service_controller_endpointslice_endpointslices_changed_per_sync{topology}`
    pub slices_changed: Family<Topology, Histogram>,
    /// `multus_service_controller_endpointslice_syncs{result}`
    pub syncs: Family<SyncResult, Counter>,
    /// `multus_service_controller_events{reason}`
    pub events: Family<EventReason, Counter>,
    /// `multus_service_controller_queue_depth`
    pub queue_depth: Gauge,
    /// `multus_service_controller_sync_duration_seconds`
    pub sync_duration: Histogram,
    /// `multus_service_controller_queue_latency_seconds`
    pub queue_latency: Histogram,
    /// `multus_service_controller_leader`
    pub leader: Gauge,
    services: Family<VerdictLabel, Gauge>,
    totals: Arc<Mutex<Totals>>,
}

impl Metrics {
    /// Registers every family.
    pub fn register(registry: &mut Registry) -> Self {
        let per_sync = || Histogram::new(exponential_buckets(2.0, 2.0, 15));
        let metrics = Self {
            endpoints_added: per_sync(),
            endpoints_removed: per_sync(),
            endpoints_desired: Gauge::default(),
            num_slices: Gauge::default(),
            desired_slices: Gauge::default(),
            changes: Family::default(),
            slices_changed: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 2.0, 10))
            }),
            syncs: Family::default(),
            events: Family::default(),
            queue_depth: Gauge::default(),
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            // 1 ms to 65 s: a queue that is not drained for a minute is stuck.
            queue_latency: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            leader: Gauge::default(),
            services: Family::default(),
            totals: Arc::default(),
        };
        metrics.create_series();
        metrics.register_kubernetes(
            registry.sub_registry_with_prefix("multus_service_controller_endpointslice"),
        );
        metrics.register_own(registry.sub_registry_with_prefix("multus_service_controller"));
        metrics
    }

    /// A series that appears only at its first event hides that event from `rate()`.
    fn create_series(&self) {
        for operation in ["create", "update", "delete"] {
            drop(self.changes.get_or_create(&Operation { operation }));
        }
        for result in ["success", "stale", "error"] {
            drop(self.syncs.get_or_create(&SyncResult { result }));
        }
        for verdict in Verdict::ALL {
            drop(self.services.get_or_create(&verdict.label()));
        }
        let topology = Topology {
            topology: "Disabled",
            traffic_distribution: String::new(),
        };
        drop(self.slices_changed.get_or_create(&topology));
    }

    fn register_kubernetes(&self, registry: &mut Registry) {
        registry.register(
            "endpoints_added_per_sync",
            "Number of endpoints added on each Service sync",
            self.endpoints_added.clone(),
        );
        registry.register(
            "endpoints_removed_per_sync",
            "Number of endpoints removed on each Service sync",
            self.endpoints_removed.clone(),
        );
        registry.register(
            "endpoints_desired",
            "Number of endpoints desired",
            self.endpoints_desired.clone(),
        );
        registry.register(
            "num_endpoint_slices",
            "Number of EndpointSlices",
            self.num_slices.clone(),
        );
        registry.register(
            "desired_endpoint_slices",
            "Number of EndpointSlices that would exist with perfect endpoint allocation",
            self.desired_slices.clone(),
        );
        registry.register("changes", "Number of EndpointSlice changes", self.changes.clone());
        registry.register(
            "endpointslices_changed_per_sync",
            "Number of EndpointSlices changed on each Service sync",
            self.slices_changed.clone(),
        );
        registry.register(
            "services",
            "Number of managed Services by the condition Accepted",
            self.services.clone(),
        );
        registry.register("syncs", "Number of EndpointSlice syncs", self.syncs.clone());
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "events",
            "Number of Events published on Services",
            self.events.clone(),
        );
        registry.register(
            "queue_depth",
            "Number of Services that wait in the queue",
            self.queue_depth.clone(),
        );
        registry.register(
            "sync_duration_seconds",
            "Duration of a Service sync, including its writes",
            self.sync_duration.clone(),
        );
        registry.register(
            "queue_latency_seconds",
            "Time for which a Service that was due waited for its sync",
            self.queue_latency.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica holds the Lease, or writes without one",
            self.leader.clone(),
        );
    }

    /// Replaces a Service's share of the totals after a sync.
    pub fn set_service(&self, service: &ObjectName, counts: Counts, verdict: Verdict) {
        self.change_totals(|totals| totals.set(service, counts, verdict));
    }

    /// Removes a deleted Service from the totals.
    pub fn delete_service(&self, service: &ObjectName) {
        self.change_totals(|totals| totals.delete(service));
    }

    fn change_totals(&self, change: impl FnOnce(&mut Totals)) {
        let mut totals = self
            .totals
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut totals);
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.endpoints_desired.set(gauge(totals.sum.endpoints));
        self.num_slices.set(gauge(totals.sum.slices));
        self.desired_slices.set(gauge(totals.sum.desired_slices));
        for verdict in Verdict::ALL {
            let services = gauge(totals.services[verdict as usize]);
            self.services.get_or_create(&verdict.label()).set(services);
        }
    }
}

/// Running sums over all Services.
#[derive(Debug, Default)]
struct Totals {
    by_service: HashMap<ObjectName, (Counts, Verdict)>,
    sum: Counts,
    /// By verdict.
    services: [usize; Verdict::ALL.len()],
}

impl Totals {
    fn set(&mut self, service: &ObjectName, counts: Counts, verdict: Verdict) {
        self.delete(service);
        self.by_service.insert(service.clone(), (counts, verdict));
        self.services[verdict as usize] += 1;
        self.sum.endpoints += counts.endpoints;
        self.sum.slices += counts.slices;
        self.sum.desired_slices += counts.desired_slices;
    }

    fn delete(&mut self, service: &ObjectName) {
        let Some((counts, verdict)) = self.by_service.remove(service) else {
            return;
        };
        self.services[verdict as usize] -= 1;
        self.sum.endpoints -= counts.endpoints;
        self.sum.slices -= counts.slices;
        self.sum.desired_slices -= counts.desired_slices;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archived controller's NumEndpointsAndSlices: desired slices, slices, endpoints as Services are added, changed and deleted.
    #[test]
    fn metrics_cache_num_endpoints_and_slices() {
        let [one, two, three] = ["one", "two", "three"].map(|name| ObjectName::new("ns1", name));
        let counts = |(desired_slices, slices, endpoints)| Counts {
            endpoints,
            slices,
            desired_slices,
            ..Counts::default()
        };
        let mut totals = Totals::default();
        for (key, set, want) in [
            (&one, Some((2, 13, 30)), (2, 13, 30)),
            (&two, Some((2, 2, 80)), (4, 15, 110)),
            (&three, Some((2, 13, 30)), (6, 28, 140)),
            (&one, Some((2, 2, 80)), (6, 17, 190)),
            (&three, None, (4, 4, 160)),
            (&three, None, (4, 4, 160)),
        ] {
            match set {
                Some(set) => totals.set(key, counts(set), Verdict::Accepted),
                None => totals.delete(key),
            }
            let sum = totals.sum;
            assert_eq!(
                (sum.desired_slices, sum.slices, sum.endpoints),
                want,
                "{key}: {set:?}"
            );
        }
    }

    #[test]
    fn services_are_counted_by_verdict_until_they_are_deleted() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let line = |verdict: &str, services| {
            format!("multus_service_controller_endpointslice_services{{verdict=\"{verdict}\"}} {services}\n")
        };
        assert!(text().contains(&line("Rejected", 0)), "{}", text());
        let web = ObjectName::new("shop", "web");
        metrics.set_service(&web, Counts::default(), Verdict::Rejected);
        assert!(text().contains(&line("Rejected", 1)), "{}", text());
        metrics.set_service(&web, Counts::default(), Verdict::Accepted);
        assert!(text().contains(&line("Rejected", 0)) && text().contains(&line("Accepted", 1)));
        metrics.delete_service(&web);
        assert!(text().contains(&line("Accepted", 0)), "{}", text());
    }

    #[test]
    fn metric_families_have_the_names_of_kubernetes() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics
            .changes
            .get_or_create(&Operation { operation: "create" })
            .inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for family in [
            "endpoints_added_per_sync",
            "endpoints_removed_per_sync",
            "endpoints_desired",
            "num_endpoint_slices",
            "desired_endpoint_slices",
            "changes",
            "endpointslices_changed_per_sync",
            "syncs",
        ] {
            assert!(
                text.contains(&format!(
                    "# TYPE multus_service_controller_endpointslice_{family} "
                )),
                "{family} in {text}"
            );
        }
        assert!(
            text.contains(r#"multus_service_controller_endpointslice_changes_total{operation="create"} 1"#),
            "{text}"
        );
    }
}
