//! Pods of the operands and nodes, kept by their watches: a reconcile that reads a thousand of each costs the API server megabytes.
//!
//! Writes: nothing. Objects are reduced to the fields that decisions read, so that a heartbeat of a kubelet triggers no reconcile. A
//! kept object may be a moment old: [`crate::reconcile`] reads the latest ones before it changes a node or continues a removal.

mod reduced;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use process::watch::{Change, Event, Guarded, changes};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use reduced::{node, pod};

/// Objects that watches keep.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// Pods of all operands, old and new.
    pub(crate) pods: Kept<Pod>,
    /// All nodes.
    pub(crate) nodes: Kept<Node>,
}

/// Objects of one kind by name; `None` before the first complete list.
#[derive(Clone, Debug)]
pub(crate) struct Kept<K>(Arc<Mutex<Option<BTreeMap<String, K>>>>);

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + PartialEq + Send + 'static,
{
    /// All objects; `None` before the first complete list.
    pub(crate) fn all(&self) -> Option<Vec<K>> {
        Some(self.lock().as_ref()?.values().cloned().collect())
    }

    /// Keeps the objects of a watch, reduced; yields after each change.
    pub(crate) fn keep<S>(
        &self,
        events: S,
        reduce: fn(&Guarded<K>) -> K,
    ) -> impl Stream<Item = ()> + Send + use<K, S>
    where
        S: Stream<Item = Event<K>> + Send,
    {
        let kept = self.clone();
        let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
        changes(events, reduce, name)
            .filter_map(move |change| std::future::ready(kept.apply(change).then_some(())))
    }

    /// Returns true when it makes a difference.
    fn apply(&self, change: Change<K, String>) -> bool {
        let mut kept = self.lock();
        match change {
            Change::Reset(objects) => {
                let objects = objects.into_iter().map(|object| (object.name_any(), object));
                let before = kept.replace(objects.collect());
                before != *kept
            }
            Change::Apply(object) => {
                let objects = kept.get_or_insert_default();
                let name = object.name_any();
                let differs = objects.get(&name) != Some(&object);
                if differs {
                    objects.insert(name, object);
                }
                differs
            }
            Change::Delete(name) => kept
                .as_mut()
                .is_some_and(|objects| objects.remove(&name).is_some()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<String, K>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, stream};
    use serde_json::{Value, json};

    fn object(name: &str, label: &str, heartbeat: &str) -> Node {
        let value: Value = json!({
            "metadata": { "name": name, "labels": { "zone": label }, "resourceVersion": heartbeat },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat }] },
        });
        serde_json::from_value(value).unwrap()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-01T00:00:10Z";

    /// Number of changes, and the labels that are kept.
    fn after(events: Vec<Event<Node>>) -> (usize, Option<Vec<String>>) {
        let kept = Kept::<Node>::default();
        let changes = kept.keep(stream::iter(events), node).count().now_or_never();
        let labels = |node: &Node| format!("{}={}", node.name_any(), node.labels()["zone"]);
        let all = kept.all().map(|all| all.iter().map(labels).collect());
        (changes.unwrap(), all)
    }

    fn list(objects: Vec<Node>) -> Vec<Event<Node>> {
        let listed = objects.into_iter().map(Event::Listed);
        [Event::ListStarted]
            .into_iter()
            .chain(listed)
            .chain([Event::ListDone])
            .collect()
    }

    #[test]
    fn objects_are_known_once_they_are_listed() {
        assert_eq!(after(vec![]), (0, None));
        let begun = vec![Event::ListStarted, Event::Listed(object("a", "x", EARLY))];
        assert_eq!(after(begun), (0, None));
        assert_eq!(after(list(vec![])), (1, Some(vec![])));
        assert_eq!(
            after(list(vec![object("a", "x", EARLY)])),
            (1, Some(vec!["a=x".to_owned()]))
        );
    }

    #[test]
    fn only_a_change_that_decisions_can_see_is_one() {
        let mut events = list(vec![object("a", "x", EARLY), object("b", "x", EARLY)]);
        events.push(Event::Applied(object("a", "x", LATE)));
        events.extend(list(vec![object("a", "x", LATE), object("b", "x", LATE)]));
        assert_eq!(after(events.clone()).0, 1);
        events.push(Event::Applied(object("a", "y", LATE)));
        events.push(Event::Deleted(Box::new(object("b", "x", LATE).metadata)));
        events.push(Event::Deleted(Box::new(object("b", "x", LATE).metadata)));
        assert_eq!(after(events), (3, Some(vec!["a=y".to_owned()])));
    }
}
