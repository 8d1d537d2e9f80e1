//! Pods by namespace and label: a Service's pods are found without a look at all the others.
//!
//! Pure. Keyed by a hash, because ten thousand pods have tens of thousands of labels: what is found are candidates, and the selector
//! itself has the last word.

use super::Step;
use crate::objects::Pod;
use crate::selector::Selector;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// All pods, once per label.
#[derive(Debug, Default)]
pub(super) struct PodsByLabel(HashMap<u64, Vec<Arc<Pod>>>);

impl PodsByLabel {
    /// Follows a pod.
    pub(super) fn observe(&mut self, step: &Step<Pod>) {
        if let Some(before) = &step.before {
            self.remove(before);
        }
        if let Some(after) = &step.after {
            self.insert(after);
        }
    }

    /// The pods that `selector` could select; `None` when it asks for no value of any label, so that nothing is known.
    pub(super) fn candidates(&self, namespace: &str, selector: &Selector) -> Option<Vec<&Arc<Pod>>> {
        let found = selector.values().map(|(key, values)| {
            let lists = values
                .iter()
                .filter_map(|value| self.0.get(&hash(namespace, key, value)));
            lists.flatten().collect::<Vec<_>>()
        });
        found.min_by_key(Vec::len)
    }

    fn insert(&mut self, pod: &Arc<Pod>) {
        for (key, value) in pod.labels.iter() {
            let pods = self.0.entry(hash(&pod.namespace, key, value)).or_default();
            pods.push(Arc::clone(pod));
        }
    }

    fn remove(&mut self, pod: &Arc<Pod>) {
        for (key, value) in pod.labels.iter() {
            let hash = hash(&pod.namespace, key, value);
            let Some(pods) = self.0.get_mut(&hash) else {
                continue;
            };
            pods.retain(|other| !Arc::ptr_eq(other, pod));
            if pods.is_empty() {
                self.0.remove(&hash);
            }
        }
    }
}

fn hash(namespace: &str, key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, key, value).hash(&mut hasher);
    hasher.finish()
}
