//! Index of pods by namespace and label, so that a Service's pods are found without a scan.
//!
//! Pure. Keyed by a hash, because ten thousand pods have tens of thousands of labels: it returns candidates, which the caller checks with
//! the selector.

use super::Step;
use crate::objects::Pod;
use crate::selector::Selector;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// All pods, once per label, each list in the order of [`place`].
#[derive(Debug, Default)]
pub(super) struct PodsByLabel(HashMap<u64, Vec<Arc<Pod>>>);

impl PodsByLabel {
    /// Follows a pod.
    pub(super) fn update(&mut self, step: &Step<Pod>) {
        if step.is_idle() {
            return;
        }
        if let Some(before) = &step.before {
            self.remove(before);
        }
        if let Some(after) = &step.after {
            self.insert(after);
        }
    }

    /// Returns the pods that `selector` could select; `None` if it requires no label value, so that the index does not help.
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
            // A list is in the order of names, so the first one only appends.
            let at = match pods.last() {
                Some(last) if place(last) >= place(pod) => find(pods, pod).unwrap_or_else(|at| at),
                _ => pods.len(),
            };
            pods.insert(at, Arc::clone(pod));
        }
    }

    fn remove(&mut self, pod: &Arc<Pod>) {
        for (key, value) in pod.labels.iter() {
            let hash = hash(&pod.namespace, key, value);
            let Some(pods) = self.0.get_mut(&hash) else {
                continue;
            };
            if let Ok(at) = find(pods, pod) {
                pods.remove(at);
            }
            if pods.is_empty() {
                self.0.remove(&hash);
            }
        }
    }
}

/// Namespace and name of a pod, since labels of several namespaces may share a hash.
fn place(pod: &Pod) -> (&str, &str) {
    (&pod.namespace, &pod.name)
}

/// Searched by halves: a label may be on every pod of the cluster, and a new list touches all of them.
fn find(pods: &[Arc<Pod>], pod: &Pod) -> Result<usize, usize> {
    pods.binary_search_by(|other| place(other).cmp(&place(pod)))
}

fn hash(namespace: &str, key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, key, value).hash(&mut hasher);
    hasher.finish()
}
