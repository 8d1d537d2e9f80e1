//! Collects the facts of each command. Independent requests run concurrently.

use super::{
    Applied, Client, Cluster, Facts, Known as _, Read, ReadError, Reader, all_networks, all_services,
    applied, managed_slices,
};
use api::names::{CONFIG_NAME, CONTROLLER, PROXY, SERVICE_NAME_LABEL};
use api::{MultusServiceConfig, ObjectName};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;

/// Reads the objects that are the same for every Service.
pub async fn cluster(reader: &Reader) -> Cluster {
    let api = Api::<MultusServiceConfig>::all(reader.client());
    let right = super::read::right::<MultusServiceConfig>("get", None);
    let config = reader.get_from(&api, right, CONFIG_NAME).await;
    let config = no_kind_is_no_object(config);
    let namespace = Cluster::namespace(config.as_ref().ok().and_then(Option::as_ref));
    let labels = format!("app.kubernetes.io/name={PROXY}");
    let (ranges, nodes, lease, controller, proxies) = futures::join!(
        reader.list_all(""),
        reader.list_all(""),
        reader.get(&namespace, CONTROLLER),
        reader.get(&namespace, CONTROLLER),
        reader.list::<Pod>(&namespace, &labels),
    );
    Cluster {
        config,
        ranges: match ranges {
            // Before Kubernetes 1.33.
            Err(ReadError::NoKind(_)) => Ok(Vec::new()),
            other => other,
        },
        nodes,
        lease,
        controller,
        proxies,
        now: Timestamp::now(),
    }
}

/// Treats an absent kind as an absent object.
fn no_kind_is_no_object<T>(read: Read<Option<T>>) -> Read<Option<T>> {
    match read {
        Err(ReadError::NoKind(_)) => Ok(None),
        other => other,
    }
}

/// Reads the objects of one Service, and of a client if one is named.
pub async fn explain(reader: &Reader, service: &ObjectName, from: Option<&ObjectName>) -> Facts {
    let ObjectName { namespace, name } = service;
    let labels = format!("{SERVICE_NAME_LABEL}={name}");
    let (cluster, found, pods, slices, client) = futures::join!(
        cluster(reader),
        reader.get::<Service>(namespace, name),
        reader.list::<Pod>(namespace, ""),
        reader.list::<EndpointSlice>(namespace, &labels),
        client(reader, from),
    );
    let services: Vec<Service> = found.iter().flatten().cloned().collect();
    let (networks, applied) = futures::join!(
        networks(reader, &cluster, &services, from),
        rules_of(reader, &cluster, client.as_ref())
    );
    Facts {
        cluster,
        services: found.map(|service| service.into_iter().collect()),
        networks,
        pods,
        slices,
        client,
        applied,
    }
}

/// Reads the objects that affect a packet of `from`, whose destination may be a Service of the namespace `beside`.
pub async fn for_trace(reader: &Reader, from: &ObjectName, beside: &str) -> Facts {
    let mut namespaces = vec![from.namespace.clone(), beside.to_owned()];
    namespaces.dedup();
    let (cluster, (services, _), (slices, _), client) = futures::join!(
        cluster(reader),
        all_services(reader, &namespaces),
        managed_slices(reader, &namespaces),
        client(reader, Some(from)),
    );
    let applied = rules_of(reader, &cluster, client.as_ref()).await;
    Facts {
        cluster,
        services,
        networks: Err(ReadError::NotRead),
        pods: Err(ReadError::NotRead),
        slices,
        client,
        applied,
    }
}

/// Reads the rules in force in a client.
async fn rules_of(reader: &Reader, cluster: &Cluster, client: Option<&Client>) -> Read<Applied> {
    let pod = client.ok_or(ReadError::NotRead)?.pod.as_ref();
    applied(reader, cluster, pod.map_err(Clone::clone)?.as_ref()).await
}

async fn client(reader: &Reader, from: Option<&ObjectName>) -> Option<Client> {
    let key = from?.clone();
    let pod = reader.get(&key.namespace, &key.name).await;
    Some(Client { key, pod })
}

async fn networks(
    reader: &Reader,
    cluster: &Cluster,
    services: &[Service],
    from: Option<&ObjectName>,
) -> Read<super::Networks> {
    let mut namespaces: Vec<String> = Vec::new();
    for service in services {
        namespaces.extend(service.metadata.namespace.clone());
        namespaces.extend(
            api::service::network(service)
                .ok()
                .map(|network| network.namespace().to_owned()),
        );
    }
    namespaces.extend(from.map(|from| from.namespace.clone()));
    let isolation = crate::settings::isolation(cluster.config.known().and_then(Option::as_ref));
    namespaces.extend(isolation.global_namespaces().map(str::to_owned));
    namespaces.sort();
    namespaces.dedup();
    all_networks(reader, &namespaces).await
}
