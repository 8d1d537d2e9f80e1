//! The watch of the slices that authors of Services wrote.
//!
//! Reads only. A manual slice carries nothing but the name of its Service, so one watch selects by the names of all Services that are
//! served so, in all namespaces, and drops slices of other namespaces on arrival. Without such a Service no request is made. When the set
//! of Services changes the watch restarts, at once, but at most four times a second; what was known stays meanwhile.

use super::{objects, send};
use crate::index::{Change, Event};
use crate::manual::{EndpointBudget, ManualSlice, Scope, trim};
use crate::objects::service_key;
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::runtime::watcher;
use process::watch::Freshness;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

/// Time between two beginnings.
const PAUSE: Duration = Duration::from_millis(250);
/// A list that takes longer is given up when the Services change.
const LIST_PATIENCE: Duration = Duration::from_secs(30);

/// Follows the scope for ever.
pub(super) async fn follow(client: Client, mut scope: watch::Receiver<Scope>, changes: Sender<Change>) {
    let budget = Arc::new(Mutex::new(EndpointBudget::default()));
    loop {
        let started = Instant::now();
        let services = Arc::clone(&scope.borrow_and_update());
        if changes
            .send(Change::ManualScope(Arc::clone(&services)))
            .await
            .is_err()
        {
            return;
        }
        let (has_room, listed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let watched = Watched {
            services,
            budget: Arc::clone(&budget),
            has_room: Arc::clone(&has_room),
            listed: Arc::clone(&listed),
        };
        let watching = one_scope(client.clone(), watched, changes.clone());
        let rescoped = async {
            if scope.changed().await.is_err() {
                // The driver stopped: the process is exiting.
                std::future::pending::<()>().await;
            }
            sleep_until(started + PAUSE).await;
            // Each list is read to its end, also if Services change often: otherwise its content would never be seen.
            let _ = timeout(LIST_PATIENCE, listed.notified()).await;
        };
        let relist = async {
            has_room.notified().await;
            sleep_until(started + PAUSE * 4).await;
        };
        tokio::select! {
            () = watching => return,
            () = rescoped => {}
            () = relist => {}
        }
    }
}

/// Context of one watch.
struct Watched {
    services: Scope,
    /// Kept from watch to watch.
    budget: Arc<Mutex<EndpointBudget>>,
    /// An endpoint that was left out would be kept now.
    has_room: Arc<Notify>,
    /// The list is complete.
    listed: Arc<Notify>,
}

/// Ends when the channel is closed.
async fn one_scope(client: Client, watched: Watched, changes: Sender<Change>) {
    let Watched {
        services,
        budget,
        has_room,
        listed,
    } = watched;
    let Some(selector) = selector(&services) else {
        for event in [Event::ListStarted, Event::ListDone] {
            if changes.send(Change::ManualSlice(event)).await.is_err() {
                return;
            }
        }
        listed.notify_one();
        return std::future::pending().await;
    };
    info!(
        services = services.len(),
        "Started watching manual EndpointSlices"
    );
    let config = watcher::Config::default().labels(&selector);
    let events = objects::<EndpointSlice>(client, config, Freshness::Cached).filter_map(|event| {
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        let event = take(&services, &mut budget, event);
        if matches!(event, Some(Event::ListDone)) {
            listed.notify_one();
        }
        if matches!(event, Some(Event::Applied(_) | Event::Deleted(_))) && budget.has_room_again() {
            has_room.notify_one();
        }
        std::future::ready(event.map(Change::ManualSlice))
    });
    send(events, changes).await;
}

/// Returns `None` if there is no Service to watch.
fn selector(services: &BTreeSet<ObjectName>) -> Option<String> {
    let names: BTreeSet<_> = services.iter().map(|key| key.name.as_str()).collect();
    let names: Vec<_> = names.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "{SERVICE_NAME_LABEL} in ({}),{MANAGED_BY_LABEL}!={MANAGED_BY}",
            names.join(",")
        )
    })
}

/// Converts an event about a slice of these Services; `None` if it is about another's.
fn take(
    services: &Scope,
    budget: &mut EndpointBudget,
    event: Event<EndpointSlice>,
) -> Option<Event<ManualSlice>> {
    let is_in = |slice: &EndpointSlice| service_key(slice).is_some_and(|key| services.contains(&key));
    Some(match event {
        Event::ListStarted => {
            budget.begin();
            Event::ListStarted
        }
        Event::Listed(slice) if is_in(&slice) => Event::Listed(budget.admit(trim(slice))),
        Event::Listed(_) => return None,
        Event::ListDone => {
            budget.end();
            Event::ListDone
        }
        Event::Applied(slice) if is_in(&slice) => Event::Applied(budget.admit(trim(slice))),
        // It may have been one of them until now.
        Event::Applied(slice) => gone(budget, Box::new(slice.metadata)),
        Event::Deleted(metadata) => gone(budget, metadata),
        Event::Unreadable(unreadable) => Event::Unreadable(unreadable),
    })
}

fn gone(budget: &mut EndpointBudget, metadata: Box<ObjectMeta>) -> Event<ManualSlice> {
    budget.forget(&ObjectName::of_metadata(&metadata));
    Event::Deleted(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(keys: &[(&str, &str)]) -> Scope {
        Arc::new(
            keys.iter()
                .map(|(namespace, name)| ObjectName::new(*namespace, *name))
                .collect(),
        )
    }

    fn slice(namespace: &str, service: &str) -> EndpointSlice {
        let labels = json!({SERVICE_NAME_LABEL: service, "note": "x"});
        serde_json::from_value(
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.2"]}],
            "metadata": {"name": "s", "namespace": namespace, "resourceVersion": "7", "labels": labels}}),
        )
        .unwrap()
    }

    #[test]
    fn services_are_selected_by_their_names_and_nothing_without_one() {
        assert_eq!(selector(&scope(&[])), None);
        let selector = selector(&scope(&[("shop", "db"), ("bank", "db"), ("bank", "api")])).unwrap();
        let managed_by =
            "endpointslice.kubernetes.io/managed-by!=multus-endpointslice-controller.npwg.k8s.io";
        assert_eq!(
            selector,
            format!("kubernetes.io/service-name in (api,db),{managed_by}")
        );
    }

    #[test]
    fn a_slice_of_another_namespace_or_service_is_dropped() {
        let (services, mut budget) = (scope(&[("shop", "db")]), EndpointBudget::default());
        let mut took = |event| take(&services, &mut budget, event);
        assert_eq!(took(Event::Listed(slice("bank", "db"))), None);
        let Some(Event::Listed(kept)) = took(Event::Listed(slice("shop", "db"))) else {
            panic!("it is the Service's own")
        };
        assert_eq!(
            kept.slice.metadata.resource_version, None,
            "a new version alone is no change"
        );
        assert_eq!(
            kept.slice
                .metadata
                .labels
                .as_ref()
                .map(std::collections::BTreeMap::len),
            Some(1)
        );
        // Moved to another Service: deleted for this one.
        let moved = took(Event::Applied(slice("shop", "api")));
        assert!(matches!(moved, Some(Event::Deleted(_))), "{moved:?}");
    }
}
