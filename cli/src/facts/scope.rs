//! Lists of the whole cluster that fall back to namespaces when the user may only read those.

use super::{Lack, Networks, Read, Reader, Right};
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROXY_NAME, PROXY_NAME_LABEL};
use controller::objects::ObjectKey;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// All objects of a kind, or those of these namespaces, and what was rejected.
async fn widest<K>(reader: &Reader, namespaces: &[String], labels: &str) -> (Read<Vec<K>>, Option<Right>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let rejected = match reader.list_all(labels).await {
        Err(Lack::Forbidden(right)) => right,
        other => return (other, None),
    };
    let mut found = Vec::new();
    for namespace in namespaces {
        match reader.list(namespace, labels).await {
            Ok(more) => found.extend(more),
            Err(lack) => return (Err(lack), Some(rejected)),
        }
    }
    (Ok(found), Some(rejected))
}

/// Services with our label.
pub async fn all_services(reader: &Reader, namespaces: &[String]) -> (Read<Vec<Service>>, Option<Right>) {
    widest(reader, namespaces, &format!("{PROXY_NAME_LABEL}={PROXY_NAME}")).await
}

/// EndpointSlices that a controller of ours wrote.
pub async fn our_slices(reader: &Reader, namespaces: &[String]) -> (Read<Vec<EndpointSlice>>, Option<Right>) {
    widest(reader, namespaces, &format!("{MANAGED_BY_LABEL}={MANAGED_BY}")).await
}

/// Pods.
pub async fn all_pods(reader: &Reader, namespaces: &[String]) -> (Read<Vec<Pod>>, Option<Right>) {
    widest(reader, namespaces, "").await
}

/// network-attachment-definitions; where only some namespaces may be read, of those.
pub async fn all_networks(reader: &Reader, namespaces: &[String]) -> Read<Networks> {
    let (api, right) = reader.networks(None);
    match reader.list_from(&api, right, "").await {
        Ok(found) => {
            return Ok(Networks {
                found: found.iter().map(ObjectKey::from_dynamic).collect(),
                only_in: None,
            });
        }
        Err(Lack::Forbidden(_)) => {}
        Err(lack) => return Err(lack),
    }
    let mut networks = Networks {
        found: Vec::new(),
        only_in: Some(Vec::new()),
    };
    let mut first_lack = None;
    for namespace in namespaces {
        let (api, right) = reader.networks(Some(namespace));
        match reader.list_from(&api, right, "").await {
            Ok(found) => {
                networks.found.extend(found.iter().map(ObjectKey::from_dynamic));
                networks.only_in.get_or_insert_default().push(namespace.clone());
            }
            Err(lack) => _ = first_lack.get_or_insert(lack),
        }
    }
    match first_lack {
        Some(lack) if networks.only_in.as_ref().is_none_or(Vec::is_empty) => Err(lack),
        _ => Ok(networks),
    }
}

/// `ObjectKey::of` for an object whose kind is known at run time only.
trait FromDynamic {
    fn from_dynamic(object: &kube::core::DynamicObject) -> Self;
}

impl FromDynamic for ObjectKey {
    fn from_dynamic(object: &kube::core::DynamicObject) -> Self {
        let metadata = &object.metadata;
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}
