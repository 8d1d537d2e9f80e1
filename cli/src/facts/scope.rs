//! Lists of the whole cluster that fall back to namespaces when the user may only read those.

use super::{Networks, Read, ReadError, Reader, Right};
use api::ObjectName;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROXY_NAME, PROXY_NAME_LABEL};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Lists all objects of a kind, or those of these namespaces and the missing permission.
async fn widest<K>(reader: &Reader, namespaces: &[String], labels: &str) -> (Read<Vec<K>>, Option<Right>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let rejected = match reader.list_all(labels).await {
        Err(ReadError::Forbidden(right)) => right,
        other => return (other, None),
    };
    let mut found = Vec::new();
    for namespace in namespaces {
        match reader.list(namespace, labels).await {
            Ok(more) => found.extend(more),
            Err(read_error) => return (Err(read_error), Some(rejected)),
        }
    }
    (Ok(found), Some(rejected))
}

/// Lists Services with the label.
pub async fn all_services(reader: &Reader, namespaces: &[String]) -> (Read<Vec<Service>>, Option<Right>) {
    widest(reader, namespaces, &format!("{PROXY_NAME_LABEL}={PROXY_NAME}")).await
}

/// Lists managed EndpointSlices.
pub async fn managed_slices(
    reader: &Reader,
    namespaces: &[String],
) -> (Read<Vec<EndpointSlice>>, Option<Right>) {
    widest(reader, namespaces, &format!("{MANAGED_BY_LABEL}={MANAGED_BY}")).await
}

/// Lists pods.
pub async fn all_pods(reader: &Reader, namespaces: &[String]) -> (Read<Vec<Pod>>, Option<Right>) {
    widest(reader, namespaces, "").await
}

/// Lists network-attachment-definitions of all namespaces, or of those that may be read.
pub async fn all_networks(reader: &Reader, namespaces: &[String]) -> Read<Networks> {
    let (api, right) = reader.networks("list", None);
    match reader.list_from(&api, right, "").await {
        Ok(found) => {
            return Ok(Networks {
                found: found
                    .iter()
                    .map(|network| ObjectName::of_metadata(&network.metadata))
                    .collect(),
                only_in: None,
            });
        }
        Err(ReadError::Forbidden(_)) => {}
        Err(read_error) => return Err(read_error),
    }
    let mut networks = Networks {
        found: Vec::new(),
        only_in: Some(Vec::new()),
    };
    let mut first_lack = None;
    for namespace in namespaces {
        let (api, right) = reader.networks("list", Some(namespace));
        match reader.list_from(&api, right, "").await {
            Ok(found) => {
                networks.found.extend(
                    found
                        .iter()
                        .map(|network| ObjectName::of_metadata(&network.metadata)),
                );
                networks.only_in.get_or_insert_default().push(namespace.clone());
            }
            Err(read_error) => _ = first_lack.get_or_insert(read_error),
        }
    }
    match first_lack {
        Some(read_error) if networks.only_in.as_ref().is_none_or(Vec::is_empty) => Err(read_error),
        _ => Ok(networks),
    }
}
