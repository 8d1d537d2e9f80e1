//! Orphaned slices: those of other controllers on a Service that only this controller should serve.
//!
//! Reads: the metadata of such slices. Kubernetes leaves slices and Endpoints behind when `spec.selector` is removed from a live Service
//! (it calls that hand-over to the user), and DNS then answers with them too. They cannot be watched by the Service's labels, because slices
//! keep the labels that the Service had before. So the slices of each Service without selector are listed once, and again while orphaned
//! ones are found.

use crate::manual::ENDPOINT_SLICE_CONTROLLER;
use crate::service_status::problem::{Problem, Reason};
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, ObjectList};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Interval of lists while orphaned slices are found.
const RELIST_INTERVAL: Duration = Duration::from_secs(15);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Names of the slices found, or the error of the list.
pub type ListResult = Result<Vec<String>, Error>;

/// Errors of a list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server rejected.
    #[error(transparent)]
    Api(#[from] Box<kube::Error>),
    /// No answer in time.
    #[error("no answer from the API server within 30 s")]
    Timeout,
}

/// Lists slices that carry the Service's name and are not managed.
pub async fn list(client: Client, key: ObjectName) -> (ObjectName, ListResult) {
    let api: Api<PartialObjectMeta<EndpointSlice>> = Api::namespaced(client, &key.namespace);
    let selector = foreign_selector(&key);
    let parameters = ListParams::default().labels(&selector);
    let found = bounded(REQUEST_TIMEOUT, api.list(&parameters)).await.map(names);
    (key, found)
}

/// Without an answer nothing is known, so a timeout must not end a warning.
async fn bounded<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    let answer = timeout(limit, request).await.map_err(|_| Error::Timeout)?;
    Ok(answer.map_err(Box::new)?)
}

fn names(list: ObjectList<PartialObjectMeta<EndpointSlice>>) -> Vec<String> {
    list.items
        .into_iter()
        .filter_map(|slice| slice.metadata.name)
        .collect()
}

fn foreign_selector(key: &ObjectName) -> String {
    format!(
        "{SERVICE_NAME_LABEL}={},{MANAGED_BY_LABEL}!={MANAGED_BY}",
        key.name
    )
}

/// The problem with its remedy: the exact commands.
pub fn problem(key: &ObjectName, names: &[String]) -> Problem {
    let ObjectName { namespace, name } = key;
    Problem::new(
        Reason::ConflictingEndpoints,
        format!(
            "EndpointSlices of another controller are left on this Service, delete them: kubectl -n {namespace} delete endpoints {name} --ignore-not-found; kubectl -n {namespace} delete endpointslices -l '{}'; until then DNS and other consumers use their addresses too",
            foreign_selector(key),
        ),
    )
    .seen_on(names.iter().map(|name| format!("EndpointSlice {name}")))
}

/// The same for a Service without any selector, whose author writes its slices: only what Kubernetes wrote before is to be deleted.
pub fn orphaned_by_selector_removal(key: &ObjectName, names: &[String]) -> Problem {
    let ObjectName { namespace, name } = key;
    Problem::new(
        Reason::ConflictingEndpoints,
        format!(
            "EndpointSlices that Kubernetes wrote for a selector that the Service no longer has are ignored, because their addresses are on the cluster network; delete them: kubectl -n {namespace} delete endpoints {name} --ignore-not-found; kubectl -n {namespace} delete endpointslices -l '{SERVICE_NAME_LABEL}={name},{MANAGED_BY_LABEL}={ENDPOINT_SLICE_CONTROLLER}'"
        ),
    )
    .seen_on(names.iter().map(|name| format!("EndpointSlice {name}")))
}

/// Orphaned slices of each Service without selector.
#[derive(Debug, Default)]
pub struct OrphanedSlices(HashMap<ObjectName, Entry>);

#[derive(Debug)]
struct Entry {
    names: Vec<String>,
    /// Time of the next list; `None` if one is in progress or none is needed.
    next_list: Option<Instant>,
}

impl OrphanedSlices {
    /// Returns true if the Service is new, so that its slices must be listed now.
    pub fn is_new(&mut self, key: &ObjectName) -> bool {
        let is_new = !self.0.contains_key(key);
        if is_new {
            self.0.insert(
                key.clone(),
                Entry {
                    names: Vec::new(),
                    next_list: None,
                },
            );
        }
        is_new
    }

    /// Forgets a Service that has a selector or is not managed: slices of other controllers are no problem there.
    pub fn forget(&mut self, key: &ObjectName) {
        self.0.remove(key);
    }

    /// Names found by the last list.
    pub fn of(&self, key: &ObjectName) -> &[String] {
        self.0
            .get(key)
            .map(|entry| entry.names.as_slice())
            .unwrap_or_default()
    }

    /// Services to list again: those with orphaned slices, and those whose list failed.
    pub fn due(&mut self, now: Instant) -> Vec<ObjectName> {
        let mut due: Vec<_> = Vec::new();
        for (key, entry) in &mut self.0 {
            if entry.next_list.is_some_and(|next| next <= now) {
                entry.next_list = None;
                due.push(key.clone());
            }
        }
        due
    }

    /// Records a list's result; returns true if the names changed.
    pub fn record(&mut self, key: &ObjectName, found: ListResult, now: Instant) -> bool {
        let Some(entry) = self.0.get_mut(key) else {
            return false;
        };
        let Ok(mut names) = found else {
            entry.next_list = Some(now + RELIST_INTERVAL);
            return false;
        };
        names.sort();
        entry.next_list = (!names.is_empty()).then(|| now + RELIST_INTERVAL);
        let is_changed = entry.names != names;
        entry.names = names;
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_listed_once_and_again_only_while_orphaned_slices_are_found() {
        let key = ObjectName::new("shop", "web");
        let now = Instant::now();
        let mut orphaned = OrphanedSlices::default();
        assert!(orphaned.is_new(&key));
        assert!(!orphaned.is_new(&key));
        assert!(orphaned.record(&key, Ok(vec!["web-abc".into()]), now));
        assert_eq!(orphaned.of(&key), ["web-abc"]);
        assert_eq!(orphaned.due(now), []);
        assert_eq!(orphaned.due(now + RELIST_INTERVAL), std::slice::from_ref(&key));
        assert_eq!(orphaned.due(now + RELIST_INTERVAL), [], "it is being looked at");
        assert!(orphaned.record(&key, Ok(vec![]), now + RELIST_INTERVAL));
        assert_eq!(
            orphaned.due(now + RELIST_INTERVAL * 10),
            [],
            "nothing found, nothing to repeat"
        );
        orphaned.forget(&key);
        assert!(orphaned.is_new(&key), "its selector was removed again");
    }

    #[tokio::test]
    async fn a_list_without_an_answer_leaves_the_warning_and_is_repeated() {
        let key = ObjectName::new("shop", "web");
        let now = Instant::now();
        let mut orphaned = OrphanedSlices::default();
        orphaned.is_new(&key);
        orphaned.record(&key, Ok(vec!["web-abc".into()]), now);
        orphaned.due(now + RELIST_INTERVAL);
        let unanswered = bounded(Duration::ZERO, std::future::pending()).await;
        assert!(!orphaned.record(&key, unanswered, now + RELIST_INTERVAL));
        assert_eq!(orphaned.of(&key), ["web-abc"]);
        assert_eq!(orphaned.due(now + RELIST_INTERVAL * 2), [key]);
    }

    #[test]
    fn the_remedy_is_a_command_that_can_be_pasted() {
        let text = problem(&ObjectName::new("shop", "web"), &["web-abc".to_owned()]).text();
        assert!(text.ends_with("EndpointSlice web-abc"), "{text}");
        assert!(text.contains("kubectl -n shop delete endpoints web --ignore-not-found; kubectl -n shop delete endpointslices -l 'kubernetes.io/service-name=web,endpointslice.kubernetes.io/managed-by!=multus-endpointslice-controller.npwg.k8s.io'"), "{text}");
    }
}
