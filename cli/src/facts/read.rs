//! Reads: objects from the API server. It never writes.

use super::{Read, ReadError, Right};
use futures::AsyncBufReadExt as _;
use futures::future::LocalBoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, ListParams, LogParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource};
use process::error_chain;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// Page size, as in kubectl.
const PAGE: u32 = 500;

/// Buffer of what a program prints, in bytes.
const BUFFER: usize = 1024 * 1024;
/// Longest text of a program in bytes: rules of ten thousand Services are a third of it.
const MAX_TEXT: u64 = 64 * 1024 * 1024;

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

    /// Lists objects of any kind, of a namespace or of all, with these labels and fields. One page is in memory at a time.
    pub async fn list_kind(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        (labels, fields): (&str, &str),
        each: &mut dyn FnMut(DynamicObject),
    ) -> Read<()> {
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, kind),
            None => Api::all_with(self.client(), kind),
        };
        let parameters = ListParams::default().labels(labels).fields(fields);
        let right = right_to("list", &kind.plural, &kind.group, namespace);
        Box::pin(self.pages(&api, right, parameters, each)).await
    }

    /// Reads the last `max` bytes of the log of a container; true: there is more. The timeout is that of each part.
    pub async fn log(
        &self,
        namespace: &str,
        pod: &str,
        parameters: &LogParams,
        max: usize,
    ) -> Read<(String, bool)> {
        let api = Api::<Pod>::namespaced(self.client(), namespace);
        let right = right_to("get", "pods/log", "", Some(namespace));
        let log = self
            .bounded(right.clone(), Box::pin(api.log_stream(pod, parameters)))
            .await?;
        let mut log = Box::pin(log);
        let (mut text, mut is_cut) = (Vec::new(), false);
        loop {
            let part = async {
                log.fill_buf()
                    .await
                    .map(<[u8]>::to_vec)
                    .map_err(kube::Error::ReadEvents)
            };
            let part = self.bounded(right.clone(), Box::pin(part)).await?;
            if part.is_empty() {
                break;
            }
            log.consume_unpin(part.len());
            text.extend(part);
            // Now and then, not for each part.
            if text.len() > 2 * max {
                text.drain(..text.len() - max);
                is_cut = true;
            }
        }
        is_cut |= text.len() > max;
        let start = text.len().saturating_sub(max);
        Ok((String::from_utf8_lossy(&text[start..]).into_owned(), is_cut))
    }

    /// Runs a program in the first container of a pod, and returns what it prints.
    pub(super) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        right: Right,
        command: &[&str],
    ) -> Read<String> {
        let api = Api::<Pod>::namespaced(self.client(), namespace);
        let failed = |message: String| ReadError::Failed {
            right: right.clone(),
            message,
        };
        let run = async {
            let parameters = AttachParams::default().stdin(false).max_stdout_buf_size(BUFFER);
            let mut process = api.exec(pod, command.iter().copied(), &parameters).await?;
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let (text, error) = futures::join!(read_all(stdout), read_all(stderr));
            let status = match process.take_status() {
                Some(status) => status.await,
                None => None,
            };
            Ok((text, error, status))
        };
        let (text, error, status) = self.bounded(right.clone(), Box::pin(run)).await?;
        let is_success = status
            .as_ref()
            .is_some_and(|status| status.status.as_deref() == Some("Success"));
        if is_success {
            return Ok(text);
        }
        let reason = status.and_then(|status| status.message).unwrap_or_default();
        Err(failed(format!(
            "{} in pod {namespace}/{pod}: {} {reason}",
            command.join(" "),
            error.trim()
        )))
    }

    /// Lists objects by their API, page by page.
    pub async fn list_from<K>(&self, api: &Api<K>, right: Right, labels: &str) -> Read<Vec<K>>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let (parameters, mut found) = (ListParams::default().labels(labels), Vec::new());
        Box::pin(self.pages(api, right, parameters, &mut |object| found.push(object))).await?;
        Ok(found)
    }

    async fn pages<K>(
        &self,
        api: &Api<K>,
        right: Right,
        parameters: ListParams,
        each: &mut dyn FnMut(K),
    ) -> Read<()>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let mut parameters = parameters.limit(PAGE);
        loop {
            let page = self
                .bounded(right.clone(), Box::pin(api.list(&parameters)))
                .await?;
            page.items.into_iter().for_each(&mut *each);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Returns the API of network-attachment-definitions of one namespace or of all, and the permission to use it by `verb`.
    pub fn networks(&self, verb: &'static str, namespace: Option<&str>) -> (Api<DynamicObject>, Right) {
        let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
        let resource = ApiResource::from_gvk_with_plural(&kind, "network-attachment-definitions");
        let right = Right {
            verb,
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
    pub(crate) async fn bounded<T>(
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
pub(crate) fn right<K: Resource<DynamicType = ()>>(verb: &'static str, namespace: Option<&str>) -> Right {
    right_to(verb, &K::plural(&()), &K::group(&()), namespace)
}

pub(super) fn right_to(verb: &'static str, plural: &str, group: &str, namespace: Option<&str>) -> Right {
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

/// Reads what a program prints, up to a bound.
async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(stream) = stream {
        // Whether the text is whole follows from the status of the program.
        let _ = stream.take(MAX_TEXT).read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).into_owned()
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
