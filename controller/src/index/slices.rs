//! Managed slices, as the API server has them or will soon show them.
//!
//! Pure. A write's response is recorded at once; a watch event that is older is ignored. Versions are compared as numbers,
//! which the API server guarantees since 1.35 (KEP-5504) and etcd always gave.

use super::{Event, Step, Store};
use crate::objects::service_key;
use api::ObjectName;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All slices with our managed-by value.
#[derive(Debug, Default)]
pub struct Slices {
    store: Store<EndpointSlice>,
    by_service: BTreeMap<ObjectName, BTreeSet<String>>,
    /// UIDs of slices that we deleted and the watch still shows.
    deleted_by_us: BTreeSet<String>,
    /// Those of them that the list in progress still has; the others are deleted, although the watch may have missed it.
    listed_all_the_same: BTreeSet<String>,
    /// Services whose writes are in progress.
    writers: usize,
    /// UIDs that the watch saw deleted while writes were in progress: a late response must not bring them back.
    deleted_meanwhile: BTreeSet<String>,
}

impl Slices {
    /// Returns true once a list was completed.
    pub fn is_synced(&self) -> bool {
        self.store.is_synced()
    }

    /// The slices of a Service, in the order of names.
    pub fn of(&self, service: &ObjectName) -> Vec<Arc<EndpointSlice>> {
        let names = self.by_service.get(service).into_iter().flatten();
        let key = |name: &String| ObjectName::new(service.namespace.clone(), name.clone());
        names
            .filter_map(|name| self.store.get(&key(name)).cloned())
            .collect()
    }

    /// Every Service that has a slice.
    pub fn services(&self) -> impl Iterator<Item = ObjectName> {
        self.by_service.keys().cloned()
    }

    /// Applies a watch event and returns the Services of slices that another client changed.
    pub fn update(&mut self, event: Event<EndpointSlice>) -> BTreeSet<ObjectName> {
        match &event {
            Event::ListStarted => self.listed_all_the_same.clear(),
            Event::ListDone => self.deleted_by_us = std::mem::take(&mut self.listed_all_the_same),
            Event::Listed(slice) if self.is_outdated(slice) => {
                let uid = slice.metadata.uid.clone().unwrap_or_default();
                if self.deleted_by_us.contains(&uid) {
                    self.listed_all_the_same.insert(uid);
                }
                // It is listed, so it must not count as deleted at the end of the list.
                let kept = self.store.get(&ObjectName::of(slice)).cloned();
                return match kept {
                    Some(kept) => self.take(Event::Listed((*kept).clone())),
                    None => BTreeSet::new(),
                };
            }
            Event::Applied(slice) if self.is_outdated(slice) => return BTreeSet::new(),
            Event::Deleted(metadata) => {
                let uid = metadata.uid.clone().unwrap_or_default();
                let is_ours = self.deleted_by_us.remove(&uid);
                if self.writers > 0 {
                    self.deleted_meanwhile.insert(uid);
                }
                if is_ours {
                    return BTreeSet::new();
                }
            }
            _ => {}
        }
        self.take(event)
    }

    /// Records the API server's response to a create or an update.
    pub fn record_written(&mut self, slice: EndpointSlice) {
        let uid = slice.metadata.uid.as_deref().unwrap_or_default();
        if !self.deleted_meanwhile.contains(uid) && !self.is_outdated(&slice) {
            self.take(Event::Applied(slice));
        }
    }

    /// Records that a slice is deleted or was not found.
    pub fn record_gone(&mut self, slice: &EndpointSlice) {
        let uid = slice.metadata.uid.clone().unwrap_or_default();
        let key = ObjectName::of(slice);
        let is_known = self
            .store
            .get(&key)
            .is_some_and(|known| known.metadata.uid == slice.metadata.uid);
        if is_known {
            self.take(Event::Deleted(Box::new(slice.metadata.clone())));
            self.deleted_by_us.insert(uid);
        }
    }

    /// Writes begin; [`Slices::end_writes`] must follow.
    pub fn begin_writes(&mut self) {
        self.writers += 1;
    }

    /// Writes have ended and are recorded.
    pub fn end_writes(&mut self) {
        self.writers = self.writers.saturating_sub(1);
        if self.writers == 0 {
            self.deleted_meanwhile.clear();
        }
    }

    fn is_outdated(&self, slice: &EndpointSlice) -> bool {
        let uid = slice.metadata.uid.as_deref().unwrap_or_default();
        if self.deleted_by_us.contains(uid) {
            return true;
        }
        let known = self
            .store
            .get(&ObjectName::of(slice))
            .filter(|known| known.metadata.uid == slice.metadata.uid);
        known.is_some_and(
            |known| matches!((version(known), version(slice)), (Some(known), Some(seen)) if seen < known),
        )
    }

    fn take(&mut self, event: Event<EndpointSlice>) -> BTreeSet<ObjectName> {
        let mut affected = BTreeSet::new();
        for step in self.store.update(event) {
            let Step { key, before, after } = step;
            let owner = |slice: &Option<Arc<EndpointSlice>>| slice.as_deref().and_then(service_key);
            let (old, new) = (owner(&before), owner(&after));
            if let Some(old) = &old {
                self.forget_name(old, &key.name);
            }
            if let Some(new) = &new {
                self.by_service.entry(new.clone()).or_default().insert(key.name);
            }
            if before != after {
                affected.extend(old.into_iter().chain(new));
            }
        }
        affected
    }

    fn forget_name(&mut self, service: &ObjectName, name: &str) {
        if let Some(names) = self.by_service.get_mut(service) {
            names.remove(name);
            if names.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

fn version(slice: &EndpointSlice) -> Option<u64> {
    slice.metadata.resource_version.as_ref()?.parse().ok()
}

/// The cases of the archived multus-service controller's tracker tests: stale slices, expected deletions and forgetting, in terms of this
/// store.
#[cfg(test)]
mod tests {
    use super::*;
    use api::names::SERVICE_NAME_LABEL;
    use rstest::rstest;
    use serde_json::json;

    fn slice(name: &str, uid: &str, version: &str, service: &str) -> EndpointSlice {
        serde_json::from_value(
            json!({"addressType": "IPv4", "endpoints": [], "metadata": {"name": name, "namespace": "shop",
            "uid": uid, "resourceVersion": version, "labels": {SERVICE_NAME_LABEL: service}}}),
        )
        .unwrap()
    }

    fn web() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    fn versions(slices: &Slices) -> Vec<String> {
        slices
            .of(&web())
            .iter()
            .map(|slice| slice.metadata.resource_version.clone().unwrap())
            .collect()
    }

    fn deleted(name: &str, uid: &str) -> Event<EndpointSlice> {
        let mut metadata = crate::index::metadata(&ObjectName::new("shop", name));
        metadata.uid = Some(uid.into());
        Event::Deleted(Box::new(metadata))
    }

    #[test]
    fn tracker_update_same_slice_needs_no_sync() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        assert_eq!(
            slices.update(Event::Applied(slice("s", "u1", "10", "web"))),
            BTreeSet::new(),
            "our own echo"
        );
    }

    #[test]
    fn tracker_update_newer_slice_needs_a_sync() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        assert_eq!(
            slices.update(Event::Applied(slice("s", "u1", "11", "web"))),
            BTreeSet::from([web()])
        );
        assert_eq!(versions(&slices), ["11"]);
    }

    #[test]
    fn tracker_update_other_service_is_another_slice() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        let moved = slices.update(Event::Applied(slice("s", "u1", "11", "db")));
        assert_eq!(moved, BTreeSet::from([web(), ObjectName::new("shop", "db")]));
        assert_eq!(versions(&slices), [] as [&str; 0]);
    }

    #[rstest]
    #[case::newer_in_params("12", &["12"])]
    #[case::equal("10", &["10"])]
    #[case::newer_in_tracker("9", &["10"])]
    #[case::newer_in_tracker_as_a_number("9", &["10"])]
    fn tracker_stale_slices(#[case] seen: &str, #[case] want: &[&str]) {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.update(Event::Applied(slice("s", "u1", seen, "web")));
        assert_eq!(versions(&slices), want);
    }

    #[test]
    fn tracker_stale_slices_tracked_but_missing_in_an_older_list() {
        let mut slices = Slices::default();
        slices.update(Event::ListStarted);
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.update(Event::ListDone);
        assert_eq!(versions(&slices), ["10"], "or it would be made a second time");
    }

    #[test]
    fn tracker_stale_slices_tracked_and_older_in_the_list() {
        let mut slices = Slices::default();
        slices.update(Event::ListStarted);
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.update(Event::Listed(slice("s", "u1", "8", "web")));
        slices.update(Event::ListDone);
        assert_eq!(versions(&slices), ["10"]);
    }

    #[test]
    fn tracker_deletion_is_expected_with_any_generation() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.record_gone(&slice("s", "u1", "10", "web"));
        assert_eq!(
            slices.update(Event::Applied(slice("s", "u1", "9", "web"))),
            BTreeSet::new()
        );
        assert_eq!(
            versions(&slices),
            [] as [&str; 0],
            "an event from before the deletion brings nothing back"
        );
        assert_eq!(slices.update(deleted("s", "u1")), BTreeSet::new(), "our own echo");
    }

    #[rstest]
    #[case::same_name_other_uid("s", "u2")]
    #[case::other_name("t", "u3")]
    fn tracker_deletion_concerns_one_uid(#[case] name: &str, #[case] uid: &str) {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.record_gone(&slice("s", "u1", "10", "web"));
        slices.update(Event::Applied(slice(name, uid, "11", "web")));
        assert_eq!(versions(&slices), ["11"]);
    }

    #[test]
    fn an_unexpected_deletion_enqueues_its_service() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        assert_eq!(slices.update(deleted("s", "u1")), BTreeSet::from([web()]));
    }

    #[test]
    fn a_late_response_restores_no_deleted_slice() {
        let mut slices = Slices::default();
        slices.update(Event::Applied(slice("s", "u1", "10", "web")));
        slices.begin_writes();
        slices.update(deleted("s", "u1"));
        slices.record_written(slice("s", "u1", "10", "web"));
        assert_eq!(versions(&slices), [] as [&str; 0]);
    }

    /// A standby never writes; deletions by the leader must not accumulate in it for weeks.
    #[test]
    fn deletions_are_recorded_only_while_writes_are_in_progress() {
        let mut slices = Slices::default();
        slices.update(deleted("s", "u1"));
        assert!(slices.deleted_meanwhile.is_empty(), "no write is in progress");
        slices.begin_writes();
        slices.begin_writes();
        slices.update(deleted("s", "u2"));
        slices.end_writes();
        assert_eq!(slices.deleted_meanwhile.len(), 1, "another write is in progress");
        slices.end_writes();
        assert!(slices.deleted_meanwhile.is_empty());
    }

    /// The managed-by value changes to another controller's: the watch reports a deletion.
    #[test]
    fn on_endpoint_slice_update() {
        let mut slices = Slices::default();
        slices.update(Event::Applied(slice("s", "u1", "10", "web")));
        assert_eq!(slices.update(deleted("s", "u1")).len(), 1);
    }

    #[test]
    fn tracker_delete_service_forgets_only_that_service() {
        let mut slices = Slices::default();
        slices.record_written(slice("s", "u1", "10", "web"));
        slices.record_written(slice("t", "u2", "11", "db"));
        slices.update(deleted("t", "u2"));
        assert_eq!(slices.services().collect::<Vec<_>>(), [web()]);
    }

    /// Deletions that the watch missed, because it was interrupted, are not remembered for ever.
    #[test]
    fn a_list_clears_deletions_that_the_watch_missed() {
        let mut slices = Slices::default();
        for name in ["a", "b"] {
            let slice = slice(name, &format!("{name}-uid"), "1", "web");
            slices.update(Event::Applied(slice.clone()));
            slices.record_gone(&slice);
        }
        slices.update(Event::ListStarted);
        slices.update(Event::Listed(slice("a", "a-uid", "1", "web")));
        slices.update(Event::ListDone);
        assert_eq!(slices.deleted_by_us, BTreeSet::from(["a-uid".to_owned()]));
        assert_eq!(
            slices.of(&web()).len(),
            0,
            "a list of before the deletion brings nothing back"
        );
    }
}
