//! Requests of a kube-proxy of Kubernetes 1.34 to an API server: the lists and watches of its informers
//! (`cmd/kube-proxy/app/server.go`, `pkg/proxy/node.go`), as protobuf and with compressed lists, which is client-go's way.
//!
//! Nothing is decoded but the frames of a watch.

use super::fleet::Counts;
use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use futures::{AsyncBufRead, AsyncReadExt as _};
use kube::Client;
use serde_json::Value;

/// `!service-proxy-name`: Services of other proxies are left out; `!headless`: DNS serves those.
const SELECTOR: &str =
    "labelSelector=%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf,application/json";
const PROTOBUF_WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// Path, selectors and resource version of what one informer watches.
pub(crate) type Informer = (&'static str, String, String);

/// The informers of the kube-proxy on a node. Versions are asked for by `admin`: where a watch begins is in the list, which is not decoded.
pub(crate) async fn informers(admin: &Client, node: &str) -> Result<Vec<Informer>> {
    let kinds = [
        (
            "/api/v1/services",
            format!("{SELECTOR}&fieldSelector=spec.clusterIP%21%3DNone"),
        ),
        ("/apis/discovery.k8s.io/v1/endpointslices", SELECTOR.to_owned()),
        ("/apis/networking.k8s.io/v1/servicecidrs", SELECTOR.to_owned()),
        ("/api/v1/nodes", format!("fieldSelector=metadata.name%3D{node}")),
    ];
    let versions = kinds.map(async |(path, selectors)| {
        let request = http::Request::get(format!("{path}?limit=1")).body(Vec::new())?;
        let list: Value = admin.request(request).await?;
        let version = list["metadata"]["resourceVersion"].as_str();
        anyhow::Ok((path, selectors, version.context("no resourceVersion")?.to_owned()))
    });
    try_join_all(versions).await
}

/// Lists, says that it is synced, and counts events for ever.
pub(crate) async fn run(client: Client, informers: Vec<Informer>, counts: &Counts) -> Result<()> {
    try_join_all(informers.iter().map(|informer| list(&client, informer))).await?;
    counts.synced();
    try_join_all(informers.iter().map(|informer| watch(&client, informer, counts))).await?;
    Ok(())
}

async fn list(client: &Client, (path, selectors, _): &Informer) -> Result<()> {
    let request = http::Request::get(format!("{path}?{selectors}&limit=500&resourceVersion=0"))
        .header("Accept", PROTOBUF)
        .header("Accept-Encoding", "gzip");
    let mut body = client.request_stream(request.body(Vec::new())?).await?;
    let mut piece = vec![0; 64 << 10];
    while body.read(&mut piece).await? > 0 {}
    Ok(())
}

async fn watch(client: &Client, (path, selectors, version): &Informer, counts: &Counts) -> Result<()> {
    let url = format!(
        "{path}?{selectors}&watch=true&allowWatchBookmarks=true&timeoutSeconds=600&resourceVersion={version}"
    );
    let request = http::Request::get(url).header("Accept", PROTOBUF_WATCH);
    let body = client.request_stream(request.body(Vec::new())?).await?;
    frames(body, || counts.event()).await
}

/// A watch as protobuf is a sequence of `WatchEvent`s, each after its length in four bytes.
async fn frames(body: impl AsyncBufRead, mut each: impl FnMut()) -> Result<()> {
    let mut body = std::pin::pin!(body);
    let mut length = [0; 4];
    while body.read_exact(&mut length).await.is_ok() {
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        body.read_exact(&mut frame).await?;
        // The type is the first field.
        let is_bookmark = frame.get(2..10) == Some(b"BOOKMARK");
        if !is_bookmark {
            each();
        }
    }
    anyhow::bail!("a watch ended")
}
