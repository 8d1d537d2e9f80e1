//! Writes of a test: a namespace and its objects. The only module of this program that writes to the API server.

use super::PAUSE;
use super::objects::{Objects, is_name, labels};
use crate::facts::{Read, ReadError, Reader, right};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest log of a client in bytes.
const MAX_LOG: usize = 1024 * 1024;
/// Longest deletion of a namespace that is waited for.
const MAX_DELETION: Duration = Duration::from_secs(90);

/// Creates the namespace.
pub(super) async fn create_namespace(reader: &Reader, objects: &Objects) -> Read<()> {
    let api = Api::<Namespace>::all(reader.client());
    let namespace = objects.namespace();
    let parameters = PostParams::default();
    let create = Box::pin(api.create(&parameters, &namespace));
    reader.bounded(right::<Namespace>("create", None), create).await?;
    Ok(())
}

/// Waits until pods can be created: their service account exists.
pub(super) async fn wait_for_service_account(reader: &Reader, namespace: &str, end: Instant) {
    // Without the permission to read it, the creation of the pods shows what is wrong.
    while let Ok(None) = reader.get::<ServiceAccount>(namespace, "default").await
        && Instant::now() < end
    {
        sleep(PAUSE / 4).await;
    }
}

/// Creates the copy of the network.
pub(super) async fn create_network(reader: &Reader, copy: &DynamicObject) -> Read<()> {
    let namespace = copy.namespace();
    let (api, right) = reader.networks("create", namespace.as_deref());
    let parameters = PostParams::default();
    let create = Box::pin(api.create(&parameters, copy));
    reader.bounded(right, create).await?;
    Ok(())
}

/// Creates an object in its namespace.
pub(super) async fn create<K>(reader: &Reader, object: &K) -> Read<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<K>::namespaced(reader.client(), &namespace);
    let parameters = PostParams::default();
    let create = Box::pin(api.create(&parameters, object));
    reader
        .bounded(right::<K>("create", Some(&namespace)), create)
        .await?;
    Ok(())
}

/// Checks that the user may create and delete namespaces, before anything is created.
pub(super) async fn check_permissions(reader: &Reader) -> Read<()> {
    for verb in ["create", "delete"] {
        let right = right::<Namespace>(verb, None);
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            resource: Some("namespaces".to_owned()),
            ..ResourceAttributes::default()
        };
        let mut review = SelfSubjectAccessReview::default();
        review.spec.resource_attributes = Some(attributes);
        let api = Api::<SelfSubjectAccessReview>::all(reader.client());
        let parameters = PostParams::default();
        let create = Box::pin(api.create(&parameters, &review));
        let review = reader.bounded(right.clone(), create).await?;
        if !review.status.is_some_and(|status| status.allowed) {
            return Err(ReadError::Forbidden(right));
        }
    }
    Ok(())
}

/// Deletes a namespace and waits until it does not exist. A failed request is repeated.
pub(super) async fn delete_namespace(reader: &Reader, name: &str) -> Read<()> {
    let (api, end) = (
        Api::<Namespace>::all(reader.client()),
        Instant::now() + MAX_DELETION,
    );
    let to_get = right::<Namespace>("get", None);
    loop {
        let outcome = match delete(reader, &api, name).await {
            Ok(()) => reader.get_from(&api, to_get.clone(), name).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(None) => return Ok(()),
            // The deletion was accepted: that the user may not read it changes nothing.
            Err(ReadError::Forbidden(right)) if right.verb == "get" => return Ok(()),
            Err(error @ ReadError::Forbidden(_)) => return Err(error),
            Err(error) if Instant::now() >= end => return Err(error),
            Ok(Some(_)) if Instant::now() >= end => {
                let message = format!("namespace {name} still exists after {} s", MAX_DELETION.as_secs());
                return Err(ReadError::NotAvailable(message));
            }
            Ok(Some(_)) | Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn delete(reader: &Reader, api: &Api<Namespace>, name: &str) -> Read<()> {
    let parameters = DeleteParams::background();
    let request = async {
        match api.delete(name, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    };
    reader
        .bounded(right::<Namespace>("delete", None), Box::pin(request))
        .await
}

/// Names of the namespaces of tests that are older than `age`.
pub(super) async fn old_namespaces(reader: &Reader, age: Duration) -> Read<Vec<String>> {
    let found = reader.list_all::<Namespace>(&labels()).await?;
    let now = jiff::Timestamp::now();
    let is_old = |namespace: &&Namespace| {
        let created = namespace.metadata.creation_timestamp.as_ref();
        let lived = created.and_then(|created| Duration::try_from(now.duration_since(created.0)).ok());
        lived.is_some_and(|lived| lived >= age) && is_name(&namespace.name_any())
    };
    Ok(found
        .iter()
        .filter(is_old)
        .map(kube::ResourceExt::name_any)
        .collect())
}

/// The latest warning about a pod that does not start, such as one of Multus.
pub(super) async fn warning(reader: &Reader, pod: &Pod) -> Option<String> {
    let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&());
    let namespace = pod.namespace()?;
    let fields = format!("involvedObject.name={},type=Warning", pod.name_any());
    let mut last: Option<(String, String)> = None;
    let mut each = |event: DynamicObject| {
        let time = event.data["lastTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let word = |field: &str| event.data[field].as_str().unwrap_or_default().to_owned();
        let text = format!("{}: {}", word("reason"), word("message"));
        if last.as_ref().is_none_or(|(latest, _)| *latest <= time) {
            last = Some((time, text));
        }
    };
    let listed = reader
        .list_kind(&kind, Some(&namespace), ("", &fields), &mut each)
        .await;
    listed.ok()?;
    last.map(|(_, text)| text)
}

/// Reads the log of a client pod; `None`: its container has not started.
pub(super) async fn log(reader: &Reader, pod: &Pod) -> Read<Option<String>> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let parameters = kube::api::LogParams::default();
    match reader.log(&namespace, &name, &parameters, MAX_LOG).await {
        Ok((text, _)) => Ok(Some(text)),
        // A kubelet that does not answer may do so at the next poll, and a pod that is gone is named by its client.
        Err(ReadError::Failed { .. } | ReadError::NoKind(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
