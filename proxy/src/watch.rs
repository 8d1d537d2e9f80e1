//! Watches of the driver: labelled Services, the pods of this node, the slices of their networks, the own Node, ServiceCIDRs.
//!
//! Reads only. An object that cannot be decoded is a value and stops no watch; a new list replaces the old one only when it is complete,
//! so that a restarted watch removes nothing meanwhile.

mod follow;
mod narrow;
mod scope;
mod slices;

use crate::cluster_info::NodeInfo;
use crate::index::{NodePod, Update};
use api::names::{PROXY_NAME, PROXY_NAME_LABEL};
use api::service_cidr::ranges;
use api::{NetworkRef, ObjectName};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use process::watch::{Change, Event, Freshness, Guarded, Presence, changes, follow_optional};
use rules::{NotServed, ServedService, Slice};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tracing::warn;

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
    let services = required(Api::all(client.clone()), services);
    let pods = required(Api::all(client.clone()), all().fields(&on_node));
    let pods = changes(pods, pod, uid).boxed();
    let fixed = host_networks.map(scope::Network::from).collect();
    let own = all().fields(&format!("metadata.name={node_name}"));
    let watches: Vec<BoxStream<'static, Update>> = vec![
        changes(services, service, name).map(Update::Service).boxed(),
        follow::pods_and_slices(client.clone(), pods, fixed).boxed(),
        own_node(client, own).map(Update::Node).boxed(),
        match service_cidrs {
            ServiceCidrs::Given => stream::once(std::future::ready(Change::Reset(Vec::new()))).boxed(),
            ServiceCidrs::Watched => {
                let without = "endpoints in ClusterIP ranges are not rejected";
                let events = follow_optional(Api::all(client.clone()), all(), without);
                changes(events, service_cidr, plain_name).boxed()
            }
        }
        .map(Update::ServiceCidr)
        .boxed(),
    ];
    stream::select_all(watches).boxed()
}

fn required<K>(api: Api<Guarded<K>>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    process::watch::follow(api, config, Freshness::Cached, Presence::Required)
}

fn own_node(
    client: &Client,
    own: watcher::Config,
) -> impl Stream<Item = Change<(String, Option<NodeInfo>), String>> + Send + use<> {
    let events = follow_optional(Api::all(client.clone()), own, "zone hints are ignored");
    changes(events, node, plain_name)
}

fn name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::of_metadata(metadata)
}

fn plain_name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

fn service(object: &Guarded<Service>) -> (ObjectName, Result<ServedService, NotServed>) {
    let read = match &object.0 {
        Ok(service) => ServedService::parse(service),
        Err(invalid) => Err(NotServed::Malformed(invalid.error.chars().take(200).collect())),
    };
    (name(object.meta()), read)
}

fn slice(object: &Guarded<EndpointSlice>) -> Option<Slice> {
    let read = object.0.as_ref().map_err(|unreadable| unreadable.error.clone());
    let read = read.and_then(|slice| Slice::parse(slice).map_err(|error| error.to_string()));
    if let Err(why) = &read {
        warn!(slice = %name(object.meta()), %why, "Ignoring invalid EndpointSlice");
    }
    read.ok()
}

fn pod(object: &Guarded<Pod>) -> (String, Option<NodePod>) {
    let uid = uid(object.meta());
    let read = match &object.0 {
        Ok(pod) => NodePod::parse(pod),
        Err(unreadable) => {
            warn!(pod = %name(object.meta()), error = %unreadable.error, "Ignoring undecodable Pod, keeping its last state");
            Some(NodePod::Unreadable { uid: uid.clone() })
        }
    };
    (uid, read)
}

fn node(object: &Guarded<PartialObjectMeta<Node>>) -> (String, Option<NodeInfo>) {
    let metadata = object.meta();
    (plain_name(metadata), Some(NodeInfo::parse(metadata)))
}

fn service_cidr(object: &Guarded<ServiceCIDR>) -> (String, Option<Vec<IpNet>>) {
    let name = plain_name(object.meta());
    if let Err(unreadable) = &object.0 {
        warn!(kind = %ServiceCIDR::kind(&()), object = name, error = %unreadable.error, "Ignoring undecodable object, keeping its last state");
    }
    (name, object.0.as_ref().ok().map(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

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
        let client = Client::new(absent, "default");
        let mut changes = Box::pin(own_node(&client, watcher::Config::default()));
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
