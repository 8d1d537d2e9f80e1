//! The watches, one task each, into one channel.
//!
//! Reads: Services with our label, all Pods and Nodes, slices with our managed-by value, manual slices, ServiceCIDRs, network attachment
//! definitions. An object that cannot be read is reported as such and never stops its watch; a lost connection is tried again within
//! five seconds.

mod manual_slices;

use crate::index::{Change, Event};
use crate::manual::Scope;
use crate::objects::{NodeObject, PodObject, trim_service, trim_slice};
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, NETWORK_DEFINITION, PROXY_NAME, PROXY_NAME_LABEL};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use process::watch::{Defined, Freshness, Presence, follow, follow_defined, follow_optional};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Starts all watches. They end when the channel is closed. `scope`: the Services whose manual slices are watched.
pub fn start(client: &Client, changes: &Sender<Change>, scope: watch::Receiver<Scope>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default;
    let labelled = |key: &str, value: &str| all().labels(&format!("{key}={value}"));
    // Objects that the controller writes must be listed in their latest version.
    let (latest, cached) = (Freshness::Latest, Freshness::Cached);
    let services = labelled(PROXY_NAME_LABEL, PROXY_NAME);
    let services = objects(client.clone(), services, latest).map(|event| {
        Change::Service(event.map(|mut service: Service| {
            trim_service(&mut service);
            service
        }))
    });
    tasks.spawn(send(services, changes.clone()));
    let slices = labelled(MANAGED_BY_LABEL, MANAGED_BY);
    let slices = objects(client.clone(), slices, latest).map(|event| {
        Change::Slice(event.map(|mut slice: EndpointSlice| {
            trim_slice(&mut slice);
            slice
        }))
    });
    tasks.spawn(send(slices, changes.clone()));
    tasks.spawn(manual_slices::follow(client.clone(), scope, changes.clone()));
    let pods = objects(client.clone(), all(), cached);
    let pods = pods.map(|event| Change::Pod(event.map(|pod: PodObject| pod.into())));
    tasks.spawn(send(pods, changes.clone()));
    let nodes = objects(client.clone(), all(), cached);
    let nodes = nodes.map(|event| Change::Node(event.map(|node: NodeObject| node.into())));
    tasks.spawn(send(nodes, changes.clone()));
    tasks.spawn(send(service_cidrs(client), changes.clone()));
    tasks.spawn(send(networks(client), changes.clone()));
    tasks
}

/// Returns the events of all objects of a kind; an object that cannot be decoded is logged.
fn objects<K>(
    client: Client,
    config: watcher::Config,
    freshness: Freshness,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    follow(Api::all(client), config, freshness, Presence::Required).inspect(log_unreadable)
}

fn log_unreadable<K: Resource<DynamicType = ()>>(event: &Event<K>) {
    if let Event::Unreadable(invalid) = event {
        let key = ObjectName::of_metadata(&invalid.metadata);
        warn!(kind = %K::kind(&()), object = %key, error = %invalid.error, "Ignored undecodable object");
    }
}

/// Ranges of ClusterIPs. Where they cannot be read, those of the command line count.
fn service_cidrs(client: &Client) -> impl Stream<Item = Change> + Send + use<> {
    let without = "only addresses in --service-cidrs are rejected as endpoints";
    let events = follow_optional(Api::all(client.clone()), watcher::Config::default(), without);
    let events = events.inspect(log_unreadable);
    events.map(|event| Change::ServiceCidr(event.map(|object: ServiceCIDR| object.into())))
}

/// Network attachment definitions are a custom kind that may be missing: then networks are not checked, and no request is made.
fn networks(client: &Client) -> impl Stream<Item = Change> + Send + use<> {
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition"),
        "network-attachment-definitions",
    );
    let api = Api::all_with(client.clone(), &kind);
    let all = watcher::Config::default();
    let events = follow_defined(client, NETWORK_DEFINITION, api, all, Freshness::Cached);
    events.filter_map(|event| {
        std::future::ready(match event {
            Defined::Yes(event) => {
                let key =
                    |network: PartialObjectMeta<DynamicObject>| ObjectName::of_metadata(&network.metadata);
                Some(Change::Network(event.map(key)))
            }
            Defined::No => {
                info!(
                    definition = NETWORK_DEFINITION,
                    "CustomResourceDefinition not found, networks are not checked"
                );
                None
            }
        })
    })
}

/// Ends when the channel is closed.
async fn send(events: impl Stream<Item = Change> + Send, changes: Sender<Change>) {
    let mut events = std::pin::pin!(events);
    while let Some(change) = events.next().await {
        if changes.send(change).await.is_err() {
            return;
        }
    }
}
