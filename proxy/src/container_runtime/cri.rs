//! Client of the Container Runtime Interface, version 1, for CRI-O and containerd.
//!
//! Reads only.

#[cfg(test)]
mod fuzz_tests;
mod proto;

use crate::container_runtime::{Error, Sandbox, SandboxSource};
use api::ObjectName;
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use proto::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxStateValue,
};
use proto::{
    PodSandboxStatusRequest, PodSandboxStatusResponse, SANDBOX_READY, VersionRequest, VersionResponse,
};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tracing::info;

/// Sockets that are tried in order when none is configured.
pub const SOCKETS: [&str; 4] = [
    "/run/crio/crio.sock",
    "/run/containerd/containerd.sock",
    "/var/run/crio/crio.sock",
    "/var/run/containerd/containerd.sock",
];

/// Largest response about all pods of the node, requested once at startup, and about one pod: a pod's annotations, at most 256 KiB, are
/// part of it up to three times, as a string within a string.
const OF_ALL: usize = 64 << 20;
const OF_ONE: usize = 8 << 20;

/// Timeout of a call: a runtime that hangs must not block the proxy.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Labels that the kubelet sets on a sandbox.
const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";

/// Connection to the runtime. It is re-established after a restart of the runtime.
#[derive(Clone, Debug)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    /// Connects to `endpoint` (a path, or `unix://` and a path), else to the first of [`SOCKETS`] on which a runtime responds.
    pub async fn connect(endpoint: Option<&str>) -> Result<Self, Error> {
        let named = endpoint.map(|endpoint| endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let candidates = named.map_or_else(|| SOCKETS.to_vec(), |socket| vec![socket]);
        let mut failures = Vec::new();
        for socket in candidates {
            match Self::try_socket(Path::new(socket)).await {
                Ok(cri) => return Ok(cri),
                Err(why) => failures.push(format!("{socket}: {why}")),
            }
        }
        Err(Error::NoRuntime(failures.join(", ")))
    }

    async fn try_socket(socket: &Path) -> Result<Self, String> {
        // Without this check a missing socket would be reported as a transport error.
        std::fs::metadata(socket).map_err(|error| error.to_string())?;
        let cri = Self {
            channel: channel(socket.to_owned()),
        };
        let version: VersionResponse = cri
            .call("Version", VersionRequest::default(), OF_ONE)
            .await
            .map_err(|error| error.to_string())?;
        let VersionResponse {
            runtime_name,
            runtime_version,
            ..
        } = version;
        info!(socket = %socket.display(), runtime = runtime_name, version = runtime_version, "Connected to the container runtime");
        Ok(cri)
    }

    async fn list(&self, filter: PodSandboxFilter, limit: usize) -> Result<Vec<PodSandbox>, Error> {
        let state = Some(PodSandboxStateValue { state: SANDBOX_READY });
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter { state, ..filter }),
        };
        let response: ListPodSandboxResponse = self.call("ListPodSandbox", request, limit).await?;
        Ok(response.items)
    }

    /// `limit`: largest response, in bytes.
    async fn call<Q, R>(&self, method: &'static str, request: Q, limit: usize) -> Result<R, Error>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let failed = |why: &dyn std::fmt::Display| Error::Runtime(format!("{method}: {why}"));
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(limit);
        let path = format!("/runtime.v1.RuntimeService/{method}")
            .parse()
            .expect("a method name makes a path");
        let answer = async {
            grpc.ready().await.map_err(|error| failed(&error))?;
            let codec = tonic_prost::ProstCodec::default();
            let response = grpc.unary(tonic::Request::new(request), path, codec).await;
            response
                .map(tonic::Response::into_inner)
                .map_err(|status| rejected(method, &status))
        };
        tokio::time::timeout(CALL_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(failed(&"no answer within 5 s")))
    }
}

/// A status without a source is from the runtime; one with a source was created by the client, because no response arrived.
fn rejected(method: &str, status: &tonic::Status) -> Error {
    let text = format!("{method}: {}", status.message());
    let is_away = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    if is_away || std::error::Error::source(status).is_some() {
        return Error::Runtime(text);
    }
    match status.code() {
        // The sandbox was deleted after the list.
        Code::NotFound => Error::NotReady,
        _ => Error::Rejected(text),
    }
}

fn selector(uid: &str, name: &ObjectName) -> HashMap<String, String> {
    let labels = [
        (POD_UID, uid),
        (POD_NAMESPACE, &name.namespace),
        (POD_NAME, &name.name),
    ];
    labels
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into()
}

fn channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is not used: the connector has the socket.
    Endpoint::from_static("http://runtime").connect_with_connector_lazy(connector)
}

#[async_trait]
impl SandboxSource for Cri {
    async fn ready(&self) -> Result<BTreeSet<String>, Error> {
        Ok(self
            .list(PodSandboxFilter::default(), OF_ALL)
            .await?
            .into_iter()
            .map(|sandbox| sandbox.id)
            .collect())
    }

    async fn of_pod(&self, uid: &str, name: &ObjectName) -> Result<Sandbox, Error> {
        let listed = self
            .list(
                PodSandboxFilter {
                    label_selector: selector(uid, name),
                    ..PodSandboxFilter::default()
                },
                OF_ONE,
            )
            .await?;
        let latest = listed
            .into_iter()
            .max_by_key(|sandbox| sandbox.created_at)
            .ok_or(Error::NotReady)?;
        let netns = self.netns(&latest.id).await?;
        Ok(Sandbox {
            id: latest.id,
            netns,
            runtime_handler: latest.runtime_handler,
        })
    }

    async fn netns(&self, id: &str) -> Result<PathBuf, Error> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let status: PodSandboxStatusResponse = self.call("PodSandboxStatus", request, OF_ONE).await?;
        let path = status.info.get("info").and_then(|info| netns_path(info));
        path.ok_or_else(|| Error::NoNetns { id: id.to_owned() })
    }
}

/// Parses the path from the verbose part of a status. CRI-O and containerd both report the OCI runtime configuration; containerd has the
/// path in its own metadata before that is complete.
fn netns_path(info: &str) -> Option<PathBuf> {
    let info: Info = serde_json::from_str(info).ok()?;
    let linux = info.runtime_spec.and_then(|spec| spec.linux).unwrap_or_default();
    let network = linux
        .namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace.kind == "network");
    let from_spec = network.and_then(|namespace| namespace.path);
    let from_metadata = || info.sandbox_metadata?.metadata?.path;
    let path = from_spec.or_else(from_metadata)?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Fields of the verbose part of a status that are needed; the rest contains the pod's annotations.
#[derive(Deserialize)]
struct Info {
    #[serde(default, rename = "runtimeSpec")]
    runtime_spec: Option<Spec>,
    #[serde(default, rename = "sandboxMetadata")]
    sandbox_metadata: Option<SandboxMetadata>,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<String>,
}

#[derive(Deserialize)]
struct SandboxMetadata {
    #[serde(default, rename = "Metadata")]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default, rename = "NetNSPath")]
    path: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::crio(r#"{"image":"pause","runtimeSpec":{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/6f1c"}]}}}"#, Some("/var/run/netns/6f1c"))]
    #[case::containerd(r#"{"pid":7,"netNamespaceClosed":false,"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/cni-1"}]}}}"#, Some("/var/run/netns/cni-1"))]
    #[case::containerd_early(r#"{"runtimeSpec":null,"sandboxMetadata":{"Version":"v1","Metadata":{"NetNSPath":"/var/run/netns/cni-2"}}}"#, Some("/var/run/netns/cni-2"))]
    #[case::host_network(r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid"}]}},"sandboxMetadata":{"Metadata":{"NetNSPath":""}}}"#, None)]
    #[case::no_path(r#"{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#, None)]
    #[case::other_shape(r#"{"runtimeSpec":{"linux":{"namespaces":{"type":"network"}}}}"#, None)]
    #[case::not_json("verbose", None)]
    fn finds_the_namespace_in_what_runtimes_answer(#[case] info: &str, #[case] want: Option<&str>) {
        assert_eq!(netns_path(info), want.map(PathBuf::from));
    }

    #[test]
    fn a_sandbox_is_looked_up_by_name_and_uid() {
        let name = ObjectName {
            namespace: "web".to_owned(),
            name: "client".to_owned(),
        };
        let mut labels: Vec<_> = selector("u-1", &name).into_iter().collect();
        labels.sort_unstable();
        let want = [
            ("io.kubernetes.pod.name", "client"),
            ("io.kubernetes.pod.namespace", "web"),
            ("io.kubernetes.pod.uid", "u-1"),
        ];
        assert_eq!(
            labels,
            want.map(|(label, value)| (label.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn an_error_about_one_pod_is_no_error_of_the_runtime() {
        let answered = rejected("PodSandboxStatus", &tonic::Status::unknown("no metadata"));
        assert!(matches!(answered, Error::Rejected(why) if why == "PodSandboxStatus: no metadata"));
        let gone = rejected("PodSandboxStatus", &tonic::Status::not_found("no such sandbox"));
        assert!(matches!(gone, Error::NotReady));
        let broken = tonic::Status::from_error("broken pipe".into());
        assert!(matches!(rejected("ListPodSandbox", &broken), Error::Runtime(_)));
        let away = tonic::Status::unavailable("shutting down");
        assert!(matches!(rejected("ListPodSandbox", &away), Error::Runtime(_)));
    }

    #[tokio::test]
    async fn a_missing_runtime_names_every_socket_tried() {
        let error = Cri::connect(Some("unix:///run/no/such.sock"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/run/no/such.sock: No such file")
                && error.contains("--container-runtime-endpoint"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_runtime_that_hangs_is_an_error_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("hang.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = Cri::connect(socket.to_str()).await.unwrap_err().to_string();
        assert!(error.contains("no answer within 5 s"), "{error}");
    }
}
