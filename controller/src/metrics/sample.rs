//! Measurements of one attempt.
//!
//! Pure, except for the counters that it increments.

use super::{Metrics, Operation, SyncResult, Topology, Verdict};
use crate::apply::WriteResult;
use crate::endpointslice::{Counts, Routing, routing};
use api::ObjectName;
use k8s_openapi::api::core::v1::Service;
use tokio::time::Instant;

/// Measurements of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Endpoints and slices, and whether it is served; `None` if the Service is not managed.
    counts: Option<(Counts, Verdict)>,
    topology: Topology,
    /// Slice writes that were planned.
    planned: usize,
    started: Instant,
}

impl Sample {
    /// An attempt that starts now.
    pub(crate) fn new(
        service: Option<&Service>,
        counts: (Counts, Verdict),
        planned: usize,
        started: Instant,
    ) -> Self {
        Self {
            counts: service.map(|_| counts),
            topology: topology(service),
            planned,
            started,
        }
    }

    /// Returns true if the Service is managed.
    pub(crate) fn is_managed(&self) -> bool {
        self.counts.is_some()
    }

    /// Records the attempt.
    pub(crate) fn record(&self, metrics: &Metrics, key: &ObjectName, done: &WriteResult) {
        let result = match &done.error {
            None => "success",
            Some(error) if error.is_conflict() => "stale",
            Some(_) => "error",
        };
        metrics.syncs.get_or_create(&SyncResult { result }).inc();
        for (operation, count) in [
            ("create", done.slices.created.len()),
            ("update", done.slices.updated.len()),
            ("delete", done.slices.deleted.len()),
        ] {
            metrics
                .changes
                .get_or_create(&Operation { operation })
                .inc_by(count as u64);
        }
        match self.counts {
            Some((counts, verdict)) => {
                metrics.endpoints_added.observe(metric(counts.added));
                metrics.endpoints_removed.observe(metric(counts.removed));
                metrics
                    .slices_changed
                    .get_or_create(&self.topology)
                    .observe(metric(self.planned));
                metrics.set_service(key, counts, verdict);
            }
            None => metrics.delete_service(key),
        }
        metrics
            .sync_duration
            .observe(self.started.elapsed().as_secs_f64());
    }
}

fn topology(service: Option<&Service>) -> Topology {
    let distribution = || service.and_then(|service| service.spec.as_ref()?.traffic_distribution.clone());
    let (topology, traffic_distribution) = match service.map(routing) {
        Some(Routing::Proportional) => ("Auto", None),
        Some(Routing::SameZone | Routing::SameNode) => ("Disabled", distribution()),
        _ => ("Disabled", None),
    };
    Topology {
        topology,
        traffic_distribution: traffic_distribution.unwrap_or_default(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of endpoints is far below 2^52"
)]
fn metric(count: usize) -> f64 {
    count as f64
}
