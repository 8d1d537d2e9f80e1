//! Reads: objects from the API server. The only module with requests; it never writes.

use super::{Read, ReadError, Right};
use futures::future::LocalBoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource};
use process::error_chain;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::timeout;

/// Page size, as in kubectl.
const PAGE: u32 = 500;

/// Reads with the permissions of one user.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    /// Timeout of one request.
    limit: Duration,
}

impl Reader {
    /// Returns a reader with a timeout per request.
    pub fn new(client: Client, limit: Duration) -> Self {
        Self { client, limit }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Reads one object; `Ok(None)`: it does not exist.
    pub async fn get<K>(&self, namespace: &str, name: &str) -> Read<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let right = right::<K>("get", Some(namespace));
        let api = Api::<K>::namespaced(self.client(), namespace);
        self.get_from(&api, right, name).await
    }

    /// Reads one object by its API.
    pub async fn get_from<K>(&self, api: &Api<K>, right: Right, name: &str) -> Read<Option<K>>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        self.bounded(right, Box::pin(api.get_opt(name))).await
    }

    /// Lists the objects of a namespace with these labels.
    pub async fn list<K>(&self, namespace: &str, labels: &str) -> Read<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let right = right::<K>("list", Some(namespace));
        let api = Api::<K>::namespaced(self.client(), namespace);
        self.list_from(&api, right, labels).await
    }

    /// Lists the objects of the cluster with these labels.
    pub async fn list_all<K>(&self, labels: &str) -> Read<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = Api::<K>::all(self.client());
        self.list_from(&api, right::<K>("list", None), labels).await
    }

    /// Lists objects of any kind, of a namespace or of all, with these labels and fields.
    pub async fn list_kind(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Read<Vec<DynamicObject>> {
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, kind),
            None => Api::all_with(self.client(), kind),
        };
        let parameters = ListParams::default().labels(labels).fields(fields);
        self.pages(
            &api,
            right_to("list", &kind.plural, &kind.group, namespace),
            parameters,
        )
        .await
    }

    /// Reads the log of a container.
    pub async fn log(&self, namespace: &str, pod: &str, parameters: &LogParams) -> Read<String> {
        let api = Api::<Pod>::namespaced(self.client(), namespace);
        let right = right_to("get", "pods/log", "", Some(namespace));
        self.bounded(right, Box::pin(api.logs(pod, parameters))).await
    }

    /// Lists objects by their API, page by page.
    pub async fn list_from<K>(&self, api: &Api<K>, right: Right, labels: &str) -> Read<Vec<K>>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        Box::pin(self.pages(api, right, ListParams::default().labels(labels))).await
    }

    async fn pages<K>(&self, api: &Api<K>, right: Right, parameters: ListParams) -> Read<Vec<K>>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let mut parameters = parameters.limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = self
                .bounded(right.clone(), Box::pin(api.list(&parameters)))
                .await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// Returns the API of network-attachment-definitions of one namespace or of all.
    pub fn networks(&self, namespace: Option<&str>) -> (Api<DynamicObject>, Right) {
        let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
        let resource = ApiResource::from_gvk_with_plural(&kind, "network-attachment-definitions");
        let right = Right {
            verb: "list",
            resource: "network-attachment-definitions.k8s.cni.cncf.io".to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        (api, right)
    }

    /// Limits the time of a request. Boxed, because its future is large and a command makes a dozen at once.
    pub(super) async fn bounded<T>(
        &self,
        right: Right,
        request: LocalBoxFuture<'_, kube::Result<T>>,
    ) -> Read<T> {
        match timeout(self.limit, request).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(read_error(right, &error)),
            Err(_) => Err(ReadError::Failed {
                right,
                message: format!("no answer within {} s", self.limit.as_secs()),
            }),
        }
    }
}

/// Returns the permission that a request for `K` needs.
pub(super) fn right<K: Resource<DynamicType = ()>>(verb: &'static str, namespace: Option<&str>) -> Right {
    right_to(verb, &K::plural(&()), &K::group(&()), namespace)
}

fn right_to(verb: &'static str, plural: &str, group: &str, namespace: Option<&str>) -> Right {
    Right {
        verb,
        resource: if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{plural}.{group}")
        },
        namespace: namespace.map(str::to_owned),
    }
}

fn read_error(right: Right, error: &kube::Error) -> ReadError {
    match error {
        kube::Error::Api(status) if status.code == 403 => ReadError::Forbidden(right),
        // An object that does not exist is `Ok(None)`: 404 means the kind is not served.
        kube::Error::Api(status) if status.code == 404 => ReadError::NoKind(right.resource),
        error => ReadError::Failed {
            right,
            message: error_chain(error),
        },
    }
}
