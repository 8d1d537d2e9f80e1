//! Network programming duration, and its spans: from the change that led to a slice, by its annotation
//! `endpoints.kubernetes.io/last-change-trigger-time`, to the last write of rules for it in a pod of this node.
//!
//! Pure, but for the metric and the queue of spans. A batch is shared by the pods that wait for it; the last one to drop it ends the
//! measurement. A change costs one allocation, and one reference per pod that starts an attempt anyway.

use super::trace;
use crate::index::Trigger;
use crate::metrics::Metrics;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use process::traces::{Span, Traces};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest age of the change of a slice that was not known before: an older slice is one of a network that has just come into the scope of
/// this node's watch.
const FRESH: SignedDuration = SignedDuration::from_mins(1);

/// Changes that a pod may wait for. A pod that fails waits for all changes since: the surplus is measured without it.
const MAX_WAITING: usize = 64;

/// Changes that are written by one round of attempts.
#[derive(Debug)]
pub(super) struct Batch {
    triggers: Vec<Timestamp>,
    /// Spans of those that are traced.
    spans: Vec<Span>,
    /// Pods that wrote rules for them.
    pods: AtomicUsize,
    metrics: Metrics,
    traces: Traces,
}

impl Batch {
    /// `since`: start of the process; earlier changes may have waited for it. `None`: nothing is to be measured.
    pub(super) fn new(
        triggers: Vec<Trigger>,
        since: Timestamp,
        now: Timestamp,
        (metrics, traces): (&Metrics, &Traces),
    ) -> Option<Arc<Self>> {
        let is_measured = |trigger: &Trigger| {
            trigger.at >= since && (!trigger.is_new || now.duration_since(trigger.at) <= FRESH)
        };
        let mut spans = Vec::new();
        let triggers: Vec<_> = triggers
            .into_iter()
            .filter(is_measured)
            .map(|trigger| {
                spans.extend(trigger.traced.map(|traced| trace::start(*traced, now)));
                trigger.at
            })
            .collect();
        (!triggers.is_empty()).then(|| {
            Arc::new(Self {
                triggers,
                spans,
                pods: AtomicUsize::new(0),
                metrics: metrics.clone(),
                traces: traces.clone(),
            })
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let pods = *self.pods.get_mut();
        if pods > 0 {
            trace::end(&self.traces, std::mem::take(&mut self.spans), pods);
            let now = Timestamp::now();
            for at in &self.triggers {
                let took = now.duration_since(*at);
                self.metrics.programmed(took.as_secs_f64().max(0.0));
            }
        }
    }
}

/// Batches of one pod.
pub(super) type Batches = Vec<Arc<Batch>>;

/// Batches by the UID of the pods that have not written them.
#[derive(Debug, Default)]
pub(super) struct Programming {
    waiting: BTreeMap<String, Batches>,
}

impl Programming {
    /// A pod has to write a batch.
    pub(super) fn add(&mut self, uid: &str, batch: &Arc<Batch>) {
        match self.waiting.get_mut(uid) {
            Some(batches) if batches.len() >= MAX_WAITING => {}
            Some(batches) => batches.push(Arc::clone(batch)),
            None => _ = self.waiting.insert(uid.to_owned(), vec![Arc::clone(batch)]),
        }
    }

    /// An attempt begins, which writes everything that the pod waits for; or the pod is deleted, or has nothing to write.
    pub(super) fn take(&mut self, uid: &str) -> Batches {
        self.waiting.remove(uid).unwrap_or_default()
    }

    /// An attempt failed and is retried.
    pub(super) fn put_back(&mut self, uid: &str, batches: Batches) {
        if batches.is_empty() {
            return;
        }
        let waiting = self.waiting.entry(uid.to_owned()).or_default();
        waiting.extend(batches);
        waiting.truncate(MAX_WAITING);
    }
}

/// An attempt succeeded: ends the measurement if no other pod waits.
pub(super) fn written(batches: Batches, has_written: bool) {
    for batch in batches {
        batch.pods.fetch_add(usize::from(has_written), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    /// Metrics, and the number of measurements.
    fn metrics() -> (Metrics, impl Fn() -> u32) {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let count = move || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let sample = "multus_service_proxy_network_programming_duration_seconds_count ";
            let line = text.lines().find_map(|line| line.strip_prefix(sample));
            line.unwrap().parse().unwrap()
        };
        (metrics, count)
    }

    fn now() -> Timestamp {
        Timestamp::now()
    }

    fn trigger(age: i64, is_new: bool) -> Trigger {
        Trigger {
            at: now() - SignedDuration::from_secs(age),
            is_new,
            traced: None,
        }
    }

    fn batch(metrics: &Metrics, triggers: &[Trigger]) -> Option<Arc<Batch>> {
        let since = now() - SignedDuration::from_hours(1);
        Batch::new(triggers.to_vec(), since, now(), (metrics, &Traces::default()))
    }

    #[test]
    fn a_change_is_measured_once_when_its_last_pod_has_written_it() {
        let ((metrics, count), mut programming) = (metrics(), Programming::default());
        let both = batch(&metrics, &[trigger(1, false), trigger(2, true)]).unwrap();
        programming.add("a", &both);
        programming.add("b", &both);
        drop(both);
        written(programming.take("a"), true);
        assert_eq!(count(), 0, "pod b has not written it");
        let failed = programming.take("b");
        programming.put_back("b", failed);
        assert_eq!(count(), 0, "pod b failed");
        written(programming.take("b"), false);
        assert_eq!(count(), 2, "two slices changed");
    }

    #[test]
    fn a_change_that_no_pod_writes_is_not_measured() {
        let ((metrics, count), mut programming) = (metrics(), Programming::default());
        let of_deleted_pod = batch(&metrics, &[trigger(1, false)]).unwrap();
        programming.add("a", &of_deleted_pod);
        drop(of_deleted_pod);
        drop(programming.take("a"));
        let unchanged = batch(&metrics, &[trigger(1, false)]).unwrap();
        written(vec![unchanged], false);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_change_that_waited_for_the_process_or_its_watch_is_not_measured() {
        let (metrics, _) = metrics();
        let is_measured = |age, is_new| batch(&metrics, &[trigger(age, is_new)]).is_some();
        assert!(is_measured(1800, false), "a known slice that arrives late");
        assert!(!is_measured(7200, false), "before the start");
        assert!(is_measured(30, true), "a new Service");
        assert!(!is_measured(1800, true), "a slice that came into scope");
    }

    #[test]
    fn a_pod_that_fails_for_long_waits_for_a_bounded_number_of_changes() {
        let ((metrics, _), mut programming) = (metrics(), Programming::default());
        for _ in 0..3 * MAX_WAITING {
            programming.add("a", &batch(&metrics, &[trigger(1, false)]).unwrap());
        }
        let failed = programming.take("a");
        assert_eq!(failed.len(), MAX_WAITING);
        programming.add("a", &batch(&metrics, &[trigger(1, false)]).unwrap());
        programming.put_back("a", failed);
        assert_eq!(programming.take("a").len(), MAX_WAITING);
    }
}
