//! The watches, one task each, into one channel.
//!
//! Reads: Services with our label, all Pods and Nodes, slices with our managed-by value, slices by hand, ServiceCIDRs, network attachment
//! definitions. An object that cannot be read is reported as such and never stops its watch; a lost connection is tried again within
//! five seconds.

mod guarded;
mod manual;
mod optional;

use crate::index::{Change, Event};
use crate::manual::Scope;
use crate::objects::{NodeObject, ObjectKey, PodObject, trim_service, trim_slice};
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROXY_NAME, PROXY_NAME_LABEL};
use futures::StreamExt;
use guarded::Guarded;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use process::Impatient;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// Objects per page of a list: larger pages list faster, and the peak of memory is one page of whole objects.
const PAGE: u32 = 200;

/// How a kind is listed before it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// Page by page, as of now.
    Paged,
    /// One object after the other out of the API server's cache (KEP-3157), where it can: never more than one object in memory, and
    /// no page has to wait for the one before. The cache may be a moment behind, so not for what we write ourselves.
    Streamed,
}

/// Starts all watches. They end when the channel is closed. `scope`: the Services whose slices by hand are watched.
pub fn start(client: &Client, changes: &Sender<Change>, scope: watch::Receiver<Scope>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default().page_size(PAGE);
    let ours = |key: &str, value: &str| all.clone().labels(&format!("{key}={value}"));
    let services = ours(PROXY_NAME_LABEL, PROXY_NAME);
    let paged = Listing::Paged;
    tasks.spawn(follow(
        client.clone(),
        services,
        paged,
        changes.clone(),
        |event| {
            Some(Change::Service(event.map(|mut service: Service| {
                trim_service(&mut service);
                service
            })))
        },
    ));
    let slices = ours(MANAGED_BY_LABEL, MANAGED_BY);
    tasks.spawn(follow(client.clone(), slices, paged, changes.clone(), |event| {
        Some(Change::Slice(event.map(|mut slice: EndpointSlice| {
            trim_slice(&mut slice);
            slice
        })))
    }));
    tasks.spawn(manual::follow(client.clone(), scope, changes.clone()));
    let (streamed, pods) = (Listing::Streamed, all.clone());
    tasks.spawn(follow(client.clone(), pods, streamed, changes.clone(), |event| {
        Some(Change::Pod(event.map(|pod: PodObject| pod.into())))
    }));
    let nodes = all.clone();
    tasks.spawn(follow(
        client.clone(),
        nodes,
        streamed,
        changes.clone(),
        |event| Some(Change::Node(event.map(|node: NodeObject| node.into()))),
    ));
    tasks.spawn(optional::follow_ranges(
        client.clone(),
        all.clone(),
        changes.clone(),
    ));
    tasks.spawn(follow_networks(client.clone(), all, changes.clone()));
    tasks
}

async fn follow<K>(
    client: Client,
    config: watcher::Config,
    listing: Listing,
    changes: Sender<Change>,
    mut wrap: impl FnMut(Event<K>) -> Option<Change>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<Guarded<K>> = Api::all(client);
    let begin = |config| watcher(api.clone(), config).backoff(Impatient::default()).boxed();
    let mut events = match listing {
        Listing::Paged => begin(config.clone()),
        Listing::Streamed => begin(streaming(&config)),
    };
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => read(event),
            Err(error) if listing == Listing::Streamed && cannot_stream(&error) => {
                debug!(kind = %K::kind(&()), %error, "The API server streams no lists, asking for pages");
                events = begin(config.clone());
                continue;
            }
            Err(error) => {
                warn!(kind = %K::kind(&()), %error, "Watch failed, trying again");
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

/// Pages and streams exclude each other.
fn streaming(config: &watcher::Config) -> watcher::Config {
    watcher::Config {
        page_size: None,
        ..config.clone()
    }
    .streaming_lists()
}

/// The API server does not know how, or its feature gate `WatchList` is off: then it calls the request invalid.
fn cannot_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

fn read<K: Resource<DynamicType = ()>>(event: watcher::Event<Guarded<K>>) -> Event<K> {
    let or_unreadable = |guard: Guarded<K>, listed: bool| match guard.0 {
        Ok(object) if listed => Event::Listed(object),
        Ok(object) => Event::Applied(object),
        Err(invalid) => {
            let meta = &invalid.metadata;
            let key = ObjectKey::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            );
            warn!(kind = %K::kind(&()), object = %key, error = %invalid.error, "Object cannot be read and is left as it was");
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
        key: ObjectKey::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// Network attachment definitions are a custom kind that may be missing, and then nothing is said about them.
async fn follow_networks(client: Client, config: watcher::Config, changes: Sender<Change>) {
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition"),
        "network-attachment-definitions",
    );
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind);
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => Event::ListStarted,
            Ok(watcher::Event::InitApply(network)) => Event::Listed(key_of(&network.metadata)),
            Ok(watcher::Event::InitDone) => Event::ListDone,
            Ok(watcher::Event::Apply(network)) => Event::Applied(key_of(&network.metadata)),
            Ok(watcher::Event::Delete(network)) => deleted(&network.metadata),
            Err(error) => {
                debug!(%error, "Network attachment definitions cannot be watched, trying again");
                continue;
            }
        };
        if changes.send(Change::Network(event)).await.is_err() {
            return;
        }
    }
}

fn key_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
