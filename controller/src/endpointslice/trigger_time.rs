//! Time of the change that led to a slice's content: `endpoints.kubernetes.io/last-change-trigger-time`.
//!
//! Pure. The earliest time among what changed since the last plan, as Kubernetes' tracker has it; consumers measure how long a change
//! took to reach the data plane from it. A change without a timestamp (of an annotation) has none.

use crate::objects::Pod;
use api::names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The times that the last successful plan of a Service knew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerTimes {
    service: Option<Timestamp>,
    pods: BTreeMap<Box<str>, Timestamp>,
}

/// The time for this plan, and what to remember once it is written.
///
/// For a Service that this process has not planned yet: its creation, or, when slices exist already (a restart, another leader), the
/// earliest change after the newest of them.
pub(crate) fn trigger_time(
    known: Option<&TriggerTimes>,
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
) -> (Option<Timestamp>, TriggerTimes) {
    let created = service.metadata.creation_timestamp.as_ref().map(|Time(at)| *at);
    let times = TriggerTimes {
        service: created,
        pods: pods
            .iter()
            .filter_map(|pod| Some((pod.name.clone(), pod.ready_changed?)))
            .collect(),
    };
    let at = match known {
        Some(known) => earliest_change(known, &times),
        None if slices.is_empty() => created,
        None => {
            let newest = slices.iter().filter_map(|slice| written(slice)).max();
            times
                .pods
                .values()
                .copied()
                .filter(|at| newest.is_none_or(|newest| *at > newest))
                .min()
        }
    };
    (at, times)
}

/// Returns true if a slice has this time already: an earlier change of the same second was written, or a part of this one.
pub(crate) fn is_written(slices: &[Arc<EndpointSlice>], at: Timestamp) -> bool {
    slices.iter().any(|slice| written(slice) == Some(at))
}

fn earliest_change(known: &TriggerTimes, now: &TriggerTimes) -> Option<Timestamp> {
    let pods = now
        .pods
        .iter()
        .filter(|(name, at)| known.pods.get(*name).is_none_or(|before| *at > before));
    let service = now
        .service
        .filter(|at| known.service.is_none_or(|before| *at > before));
    pods.map(|(_, at)| *at).chain(service).min()
}

fn written(slice: &EndpointSlice) -> Option<Timestamp> {
    slice
        .metadata
        .annotations
        .as_ref()?
        .get(LAST_CHANGE_TRIGGER_TIME_ANNOTATION)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::fixture::pod;
    use serde_json::json;

    const T0: &str = "2026-01-01T00:00:00Z";
    const T1: &str = "2026-01-01T00:00:01Z";
    const T2: &str = "2026-01-01T00:00:02Z";

    fn service() -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "creationTimestamp": T0}})).unwrap()
    }

    fn pods(times: &[(usize, &str)]) -> Vec<Arc<Pod>> {
        times
            .iter()
            .map(|(n, at)| Arc::new(pod(*n).ready_since(at).build()))
            .collect()
    }

    fn slice(at: &str) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({"addressType": "IPv4", "endpoints": [],
                "metadata": {"annotations": {LAST_CHANGE_TRIGGER_TIME_ANNOTATION: at}}}))
            .unwrap(),
        )
    }

    fn at(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    #[test]
    fn a_new_service_was_triggered_by_its_creation() {
        assert_eq!(trigger_time(None, &service(), &pods(&[(1, T1)]), &[]).0, at(T0));
    }

    #[test]
    fn the_earliest_of_the_changed_pods_counts() {
        let (_, known) = trigger_time(None, &service(), &pods(&[(1, T0), (2, T0), (3, T0)]), &[]);
        let changed = pods(&[(1, T0), (2, T2), (3, T1)]);
        assert_eq!(trigger_time(Some(&known), &service(), &changed, &[]).0, at(T1));
    }

    #[test]
    fn without_a_change_there_is_no_trigger_time() {
        let (_, known) = trigger_time(None, &service(), &pods(&[(1, T1)]), &[]);
        assert_eq!(
            trigger_time(Some(&known), &service(), &pods(&[(1, T1)]), &[]).0,
            None
        );
        assert_eq!(trigger_time(Some(&known), &service(), &[], &[]).0, None);
    }

    #[test]
    fn a_recreated_service_was_triggered_by_its_creation() {
        let (_, known) = trigger_time(None, &service(), &[], &[]);
        let mut recreated = service();
        recreated.metadata.creation_timestamp = at(T2).map(Time);
        assert_eq!(trigger_time(Some(&known), &recreated, &[], &[]).0, at(T2));
    }

    #[test]
    fn a_new_leader_counts_from_what_is_written() {
        let pods = pods(&[(1, T0), (2, T2)]);
        assert_eq!(trigger_time(None, &service(), &pods, &[slice(T1)]).0, at(T2));
        assert_eq!(trigger_time(None, &service(), &pods, &[slice(T2)]).0, None);
    }
}
