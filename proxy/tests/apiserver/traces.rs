//! Spans of the proxy, received by the OpenTelemetry Collector.

use super::cluster::{Cluster, NODE};
use crate::serving::until;
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use process::traces::{self, ChangeIds, Source, Span, TraceArgs, Traces, attribute};
use std::time::Duration;
use testbed::otelcol::{self, Receiver};

const SOON: Duration = Duration::from_secs(20);

fn start(receiver: &Receiver, name: &'static str) -> Result<(Traces, traces::TraceWriter)> {
    let arguments = TraceArgs {
        tracing_endpoint: Some(receiver.endpoint().parse()?),
        tracing_sampling_rate_per_million: 1_000_000,
        tracing_ca_file: None,
    };
    let source = Source {
        name,
        version: "1.2.3",
        instance: name,
        node: Some(NODE),
    };
    Ok(traces::start(&arguments, source))
}

/// From the slice to the rules in two pods: one span, whose parent is the span that the controller sends for the same change. What was
/// there before the proxy, and a slice without a time, are not traced.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn rules_of_a_slice_are_a_span_below_the_one_of_the_controller() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let receiver = Receiver::start(cluster.server.folder()).await?;
    for host in [7, 8] {
        let status = cluster.status(host);
        cluster.attached_pod(host, &status).await?;
    }
    let earlier = cluster.service("earlier", "macvlan1").await?;
    cluster
        .triggered_slice(&earlier, &[2], "2026-01-02T03:04:05Z")
        .await?;
    let (traces, spans) = start(&receiver, "multus-service-proxy")?;
    let proxy = cluster.traced_proxy(traces).await?;
    let writing = tokio::spawn(spans.run_beside(std::future::pending::<()>()));
    until("ready", || proxy.is_ready()).await;

    let nginx = cluster.service("nginx", "macvlan1").await?;
    cluster.slice(&nginx, &[2]).await?;
    let triggered = Timestamp::now();
    cluster
        .triggered_slice(&nginx, &[2, 3], &triggered.to_string())
        .await?;
    let of_proxy = |span: &otelcol::Span| span.name == "sync_proxy_rules";
    let span = receiver.span(SOON, "the span of the proxy", of_proxy).await?;
    let uid = nginx.uid().context("no UID")?;
    is_complete(&cluster, &nginx, &span).await?;

    // What the controller sends for this change.
    let (controller, spans) = start(&receiver, "multus-service-controller")?;
    let ids = controller.sampled(&uid, triggered).context("not sampled")?;
    controller.end(Span::root(ids, "sync_endpointslices", triggered));
    spans.run_beside(async move { drop(controller) }).await;
    let of_controller = |span: &otelcol::Span| span.name == "sync_endpointslices";
    let root = receiver
        .span(SOON, "the span of the controller", of_controller)
        .await?;
    assert_eq!(root.trace_id, ChangeIds::new(&uid, triggered).trace_id());
    assert_eq!(
        (&span.trace_id, &span.parent_span_id),
        (&root.trace_id, &root.span_id)
    );
    assert_eq!((receiver.spans()?.len(), root.parent_span_id.as_str()), (2, ""));
    writing.abort();
    proxy.stop().await
}

async fn is_complete(cluster: &Cluster, service: &Service, span: &otelcol::Span) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let slice = slices.get("nginx-multus-a").await?;
    let generation = slice.metadata.generation.context("no generation")?.to_string();
    for (key, want) in [
        (attribute::NAMESPACE, cluster.namespace.as_str()),
        (attribute::SERVICE, "nginx"),
        (attribute::SERVICE_UID, &service.uid().context("no UID")?),
        ("multusservice.endpointslice.name", "nginx-multus-a"),
        (attribute::SLICE_GENERATION, &generation),
        (attribute::ENDPOINTS, "2"),
        (attribute::PODS, "2"),
    ] {
        assert_eq!(span.attribute(key), want, "{key}");
    }
    assert_eq!(span.resource["k8s.node.name"], NODE);
    assert!(span.end > span.start && span.error.is_none(), "{span:?}");
    Ok(())
}
