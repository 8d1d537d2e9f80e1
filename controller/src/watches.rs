//! The watches, one task each, into one channel.
//!
//! Reads: Services with our label, all Pods and Nodes, slices with our managed-by value, manual slices, ServiceCIDRs, network attachment
//! definitions. An object that cannot be read is reported as such and never stops its watch; a lost connection is tried again within
//! five seconds.

mod manual_slices;
mod service_cidrs;

use crate::index::{Change, Event};
use crate::manual::Scope;
use crate::objects::{NodeObject, PodObject, trim_service, trim_slice};
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, NETWORK_DEFINITION, PROXY_NAME, PROXY_NAME_LABEL};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use process::error_chain;
use process::watch::{Defined, Freshness, Guarded, Presence, defined, watch_unpaged, while_defined};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// Starts all watches. They end when the channel is closed. `scope`: the Services whose manual slices are watched.
pub fn start(client: &Client, changes: &Sender<Change>, scope: watch::Receiver<Scope>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default;
    let labelled = |key: &str, value: &str| all().labels(&format!("{key}={value}"));
    // Objects that the controller writes must be listed in their latest version.
    let (latest, cached) = (Freshness::Latest, Freshness::Cached);
    let services = labelled(PROXY_NAME_LABEL, PROXY_NAME);
    tasks.spawn(follow(
        client.clone(),
        services,
        latest,
        changes.clone(),
        |event| {
            Some(Change::Service(event.map(|mut service: Service| {
                trim_service(&mut service);
                service
            })))
        },
    ));
    let slices = labelled(MANAGED_BY_LABEL, MANAGED_BY);
    tasks.spawn(follow(client.clone(), slices, latest, changes.clone(), |event| {
        Some(Change::Slice(event.map(|mut slice: EndpointSlice| {
            trim_slice(&mut slice);
            slice
        })))
    }));
    tasks.spawn(manual_slices::follow(client.clone(), scope, changes.clone()));
    tasks.spawn(follow(client.clone(), all(), cached, changes.clone(), |event| {
        Some(Change::Pod(event.map(|pod: PodObject| pod.into())))
    }));
    tasks.spawn(follow(client.clone(), all(), cached, changes.clone(), |event| {
        Some(Change::Node(event.map(|node: NodeObject| node.into())))
    }));
    tasks.spawn(service_cidrs::follow_service_cidrs(
        client.clone(),
        changes.clone(),
    ));
    tasks.spawn(follow_networks(client.clone(), changes.clone()));
    tasks
}

async fn follow<K>(
    client: Client,
    config: watcher::Config,
    freshness: Freshness,
    changes: Sender<Change>,
    mut wrap: impl FnMut(Event<K>) -> Option<Change>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<Guarded<K>> = Api::all(client);
    let mut events = watch_unpaged(api, config, freshness, Presence::Required).boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => read(event),
            Err(error) => {
                warn!(kind = %K::kind(&()), error = %error_chain(&error), "Watch failed, retrying");
                continue;
            }
        };
        let Some(change) = wrap(event) else {
            continue;
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn read<K: Resource<DynamicType = ()>>(event: watcher::Event<Guarded<K>>) -> Event<K> {
    let or_unreadable = |guard: Guarded<K>, listed: bool| match guard.0 {
        Ok(object) if listed => Event::Listed(object),
        Ok(object) => Event::Applied(object),
        Err(invalid) => {
            let meta = &invalid.metadata;
            let key = ObjectName::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            );
            warn!(kind = %K::kind(&()), object = %key, error = %invalid.error, "Ignored undecodable object");
            Event::Unreadable(key)
        }
    };
    match event {
        watcher::Event::Init => Event::ListStarted,
        watcher::Event::InitApply(guard) => or_unreadable(guard, true),
        watcher::Event::InitDone => Event::ListDone,
        watcher::Event::Apply(guard) => or_unreadable(guard, false),
        watcher::Event::Delete(guard) => deleted(guard.meta()),
    }
}

fn deleted<T>(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Event<T> {
    Event::Deleted {
        key: ObjectName::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// Network attachment definitions are a custom kind that may be missing: then networks are not checked, and no request is made.
async fn follow_networks(client: Client, changes: Sender<Change>) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &network_definitions());
    let begin = move || {
        watch_unpaged(
            api.clone(),
            watcher::Config::default(),
            Freshness::Cached,
            Presence::Optional,
        )
    };
    let mut events = while_defined(defined(&client, NETWORK_DEFINITION), begin).boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Defined::Yes(Ok(watcher::Event::Init)) => Event::ListStarted,
            Defined::Yes(Ok(watcher::Event::InitApply(network))) => Event::Listed(key_of(&network.metadata)),
            Defined::Yes(Ok(watcher::Event::InitDone)) => Event::ListDone,
            Defined::Yes(Ok(watcher::Event::Apply(network))) => Event::Applied(key_of(&network.metadata)),
            Defined::Yes(Ok(watcher::Event::Delete(network))) => deleted(&network.metadata),
            // A kind is served a moment after it is defined.
            Defined::Yes(Err(error)) => {
                debug!(error = %error_chain(&error), "Failed to watch network-attachment-definitions, retrying");
                continue;
            }
            Defined::No => {
                info!(
                    definition = NETWORK_DEFINITION,
                    "CustomResourceDefinition not found, networks are not checked"
                );
                continue;
            }
        };
        if changes.send(Change::Network(event)).await.is_err() {
            return;
        }
    }
}

fn network_definitions() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition"),
        "network-attachment-definitions",
    )
}

fn key_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectName {
    ObjectName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
