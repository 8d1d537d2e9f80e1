//! Watches of the driver: labelled Services, the pods of this node, the slices of their networks, the own Node, ServiceCIDRs.
//!
//! Reads only. An object that cannot be decoded is a value and stops no watch; a new list replaces the old one only when it is complete,
//! so that a restarted watch removes nothing meanwhile.

mod follow;
mod narrow;
mod scope;
mod slices;

use crate::cluster_info::NodeInfo;
use crate::index::NodePod;
use api::NetworkRef;
use api::names::{PROXY_NAME, PROXY_NAME_LABEL};
use api::service_cidr::ranges;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use process::error_chain;
use process::watch::{Freshness, Guarded, Presence, watch_optional, watch_unpaged};
use rules::{NotServed, ObjectName, ServedService, Slice};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tracing::warn;

/// Change of a watched set.
#[derive(Debug)]
pub enum Change<T> {
    /// Added or changed.
    Apply(T),
    /// Deleted.
    Delete(T),
    /// Complete list: replaces the set.
    Reset(Vec<T>),
}

/// Change of one of the watched sets.
#[derive(Debug)]
pub enum Update {
    /// Service, or the reason why it is not served.
    Service(Change<(ObjectName, Result<ServedService, NotServed>)>),
    /// Slice; `None` when it is ignored.
    Slice(Change<(ObjectName, Option<Slice>)>),
    /// Pod by UID; `None` when it is ignored.
    Pod(Change<(String, Option<NodePod>)>),
    /// Own Node.
    Node(Change<(String, Option<NodeInfo>)>),
    /// ServiceCIDR; `None` when it cannot be decoded.
    ServiceCidr(Change<(String, Option<Vec<IpNet>>)>),
}

/// Watched set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services with our label.
    Services,
    /// Managed EndpointSlices.
    Slices,
    /// Pods of this node.
    Pods,
    /// Own Node.
    Nodes,
    /// ServiceCIDRs.
    ServiceCidrs,
}

impl Kind {
    /// All sets.
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::Slices,
        Self::Pods,
        Self::Nodes,
        Self::ServiceCidrs,
    ];
}

impl Update {
    /// Returns the set that this update lists completely.
    pub fn lists(&self) -> Option<Kind> {
        match self {
            Self::Service(Change::Reset(_)) => Some(Kind::Services),
            Self::Slice(Change::Reset(_)) => Some(Kind::Slices),
            Self::Pod(Change::Reset(_)) => Some(Kind::Pods),
            Self::Node(Change::Reset(_)) => Some(Kind::Nodes),
            Self::ServiceCidr(Change::Reset(_)) => Some(Kind::ServiceCidrs),
            _ => None,
        }
    }
}

/// Source of the ClusterIP ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceCidrs {
    /// The command line: not watched.
    Given,
    /// The ServiceCIDR objects of the cluster.
    Watched,
}

/// Returns an endless stream of changes for a node without host networks.
pub fn updates(client: &Client, node_name: &str, service_cidrs: ServiceCidrs) -> BoxStream<'static, Update> {
    updates_beside(client, node_name, service_cidrs, std::iter::empty())
}

/// Returns an endless stream of changes. Slices are those of the networks that pods of this node are attached to, and of `host_networks`.
pub fn updates_beside<'a>(
    client: &Client,
    node_name: &str,
    service_cidrs: ServiceCidrs,
    host_networks: impl Iterator<Item = &'a NetworkRef>,
) -> BoxStream<'static, Update> {
    let all = watcher::Config::default;
    let services = all().labels(&format!("{PROXY_NAME_LABEL}={PROXY_NAME}"));
    let on_node = format!("spec.nodeName={node_name},status.phase!=Succeeded,status.phase!=Failed");
    let pods = changes(Api::all(client.clone()), all().fields(&on_node), pod).boxed();
    let fixed = host_networks.map(scope::Network::from).collect();
    let own = all().fields(&format!("metadata.name={node_name}"));
    let watches: Vec<BoxStream<'static, Update>> = vec![
        changes(Api::all(client.clone()), services, service)
            .map(Update::Service)
            .boxed(),
        follow::pods_and_slices(client.clone(), pods, fixed).boxed(),
        optional(Api::all(client.clone()), own, node, "zone hints are ignored")
            .map(Update::Node)
            .boxed(),
        match service_cidrs {
            ServiceCidrs::Given => stream::once(std::future::ready(Change::Reset(Vec::new()))).boxed(),
            ServiceCidrs::Watched => optional(
                Api::all(client.clone()),
                all(),
                service_cidr,
                "endpoints in ClusterIP ranges are not rejected",
            )
            .boxed(),
        }
        .map(Update::ServiceCidr)
        .boxed(),
    ];
    stream::select_all(watches).boxed()
}

fn changes<K, T>(
    api: Api<Guarded<K>>,
    config: watcher::Config,
    read: fn(&Guarded<K>) -> T,
) -> impl Stream<Item = Change<T>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    T: Send + 'static,
{
    let mut relist = Relist::default();
    watch_unpaged(api, config, Freshness::Cached, Presence::Required).filter_map(move |event| {
        let change = match event {
            Ok(event) => relist.feed(event, read),
            // The watch retries with a backoff.
            Err(error) => {
                warn!(kind = %K::kind(&()), error = %error_chain(&error), "Watch failed, retrying");
                None
            }
        };
        std::future::ready(change)
    })
}

/// Watches a kind that the proxy can run without.
fn optional<K, T>(
    api: Api<K>,
    config: watcher::Config,
    read: fn(&K) -> T,
    without: &'static str,
) -> impl Stream<Item = Change<T>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    T: Send + 'static,
{
    let mut relist = Relist::default();
    watch_optional(api, config, without).filter_map(move |event| std::future::ready(relist.feed(event, read)))
}

/// Incomplete list.
struct Relist<T>(Vec<T>);

impl<T> Default for Relist<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Relist<T> {
    fn feed<K>(&mut self, event: watcher::Event<K>, read: fn(&K) -> T) -> Option<Change<T>> {
        match event {
            watcher::Event::Apply(object) => Some(Change::Apply(read(&object))),
            watcher::Event::Delete(object) => Some(Change::Delete(read(&object))),
            watcher::Event::Init => {
                self.0.clear();
                None
            }
            watcher::Event::InitApply(object) => {
                self.0.push(read(&object));
                None
            }
            watcher::Event::InitDone => Some(Change::Reset(std::mem::take(&mut self.0))),
        }
    }
}

fn name_of<K: Resource>(object: &K) -> ObjectName {
    ObjectName {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

fn service(object: &Guarded<Service>) -> (ObjectName, Result<ServedService, NotServed>) {
    let read = match &object.0 {
        Ok(service) => ServedService::parse(service),
        Err(invalid) => Err(NotServed::Malformed(invalid.error.chars().take(200).collect())),
    };
    (name_of(object), read)
}

fn slice(object: &Guarded<EndpointSlice>) -> Option<Slice> {
    let read = object.0.as_ref().map_err(|unreadable| unreadable.error.clone());
    let read = read.and_then(|slice| Slice::parse(slice).map_err(|error| error.to_string()));
    if let Err(why) = &read {
        warn!(slice = %name_of(object), %why, "Ignoring invalid EndpointSlice");
    }
    read.ok()
}

fn pod(object: &Guarded<Pod>) -> (String, Option<NodePod>) {
    let uid = object.uid().unwrap_or_default();
    let read = match &object.0 {
        Ok(pod) => NodePod::parse(pod),
        Err(unreadable) => {
            warn!(pod = %name_of(object), error = %unreadable.error, "Ignoring undecodable Pod, keeping its last state");
            Some(NodePod::Unreadable { uid: uid.clone() })
        }
    };
    (uid, read)
}

fn node(object: &PartialObjectMeta<Node>) -> (String, Option<NodeInfo>) {
    (object.name_any(), Some(NodeInfo::parse(&object.metadata)))
}

fn service_cidr(object: &Guarded<ServiceCIDR>) -> (String, Option<Vec<IpNet>>) {
    (object.name_any(), readable(object).map(ranges))
}

fn readable<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> Option<&K> {
    if let Err(unreadable) = &object.0 {
        warn!(kind = %K::kind(&()), object = object.name_any(), error = %unreadable.error, "Ignoring undecodable object, keeping its last state");
    }
    object.0.as_ref().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use watcher::Event;

    fn fed(events: Vec<Event<u8>>) -> Vec<String> {
        let mut relist = Relist::default();
        events
            .into_iter()
            .filter_map(|event| relist.feed(event, |n| *n))
            .map(|change| format!("{change:?}"))
            .collect()
    }

    #[test]
    fn a_list_takes_effect_only_when_it_is_complete() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        assert_eq!(fed(vec![Init, InitApply(1), InitApply(2)]), Vec::<String>::new());
        let interrupted = vec![
            Init,
            InitApply(1),
            Init,
            InitApply(3),
            InitDone,
            Apply(4),
            Delete(3),
        ];
        assert_eq!(fed(interrupted), ["Reset([3])", "Apply(4)", "Delete(3)"]);
    }

    /// An API server without the kind; the real one cannot be made to lack Nodes.
    #[tokio::test]
    async fn a_missing_kind_is_reported_as_empty_once() {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let absent = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder()
                .status(404)
                .body(Body::from(b"404 page not found".to_vec()));
            std::future::ready(response)
        });
        let nodes = Api::all(Client::new(absent, "default"));
        let mut changes = Box::pin(optional(nodes, watcher::Config::default(), node, "nothing"));
        assert!(matches!(changes.next().await, Some(Change::Reset(none)) if none.is_empty()));
        let again = tokio::time::timeout(Duration::from_secs(4), changes.next()).await;
        assert!(again.is_err(), "reported again");
        assert!(requests.load(Ordering::Relaxed) >= 2, "asked again");
    }

    #[test]
    fn an_undecodable_object_keeps_its_name() {
        let malformed =
            serde_json::json!({"metadata": {"name": "bad", "namespace": "web"}, "spec": {"ports": "none"}});
        let object: Guarded<Service> = serde_json::from_value(malformed).unwrap();
        let (name, read) = service(&object);
        assert_eq!(name.to_string(), "web/bad");
        assert!(matches!(read, Err(NotServed::Malformed(_))));
    }
}
