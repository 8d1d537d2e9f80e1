//! Pods with a queued sync, for the metric of the last change that queued one.
//!
//! Pure, but for the metric.

use crate::metrics::Metrics;
use std::collections::BTreeSet;

/// UIDs of the pods that have not applied their last change, without those that are counted as failing.
#[derive(Debug)]
pub(super) struct Queue {
    uids: BTreeSet<String>,
    metrics: Metrics,
}

impl Queue {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            uids: BTreeSet::new(),
            metrics,
        }
    }

    /// A change queued a sync of each of these pods.
    pub(super) fn add(&mut self, uids: &BTreeSet<String>) {
        self.uids.extend(uids.iter().cloned());
        self.metrics.queued();
    }

    /// The pod has applied its changes, has none to apply, has ended, or is counted as failing. The last one leaves nothing queued.
    pub(super) fn leave(&mut self, uid: &str) {
        if self.uids.remove(uid) && self.uids.is_empty() {
            self.metrics.nothing_queued();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use std::time::Duration;

    fn queue() -> (Queue, Metrics) {
        let metrics = Metrics::new(&mut Registry::default());
        (Queue::new(metrics.clone()), metrics)
    }

    fn add(queue: &mut Queue, uids: &[&str]) {
        queue.add(&uids.iter().map(|uid| (*uid).to_owned()).collect());
    }

    #[test]
    fn a_pod_that_ends_leaves_nothing_queued() {
        let (mut queue, metrics) = queue();
        metrics.applied("nftables", Duration::ZERO);
        add(&mut queue, &["a", "b"]);
        assert!(metrics.has_queued());
        queue.leave("a");
        queue.leave("c");
        assert!(metrics.has_queued(), "the other pod waits");
        queue.leave("b");
        assert!(!metrics.has_queued());
    }

    #[test]
    fn a_pod_that_ends_before_the_first_sync_leaves_nothing_queued() {
        let (mut queue, metrics) = queue();
        add(&mut queue, &["a"]);
        assert!(metrics.has_queued());
        queue.leave("a");
        assert!(!metrics.has_queued());
    }

    #[test]
    fn a_change_of_a_pod_that_left_is_queued() {
        let (mut queue, metrics) = queue();
        add(&mut queue, &["a"]);
        queue.leave("a");
        add(&mut queue, &["a"]);
        assert!(metrics.has_queued());
    }
}
