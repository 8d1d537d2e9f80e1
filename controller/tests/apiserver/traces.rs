//! Spans of the controller, received by the OpenTelemetry Collector.

use crate::bed::{Controller, Fixture};
use crate::service_removal::own_server;
use anyhow::{Context as _, Result};
use api::names::LAST_CHANGE_TRIGGER_TIME_ANNOTATION;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use process::traces::{ChangeIds, attribute};
use serde_json::json;
use std::time::Duration;
use testbed::apiserver::Options;
use testbed::otelcol::{Receiver, Span};
use testbed::pki::{Ca, Usage};

const SOON: Duration = Duration::from_secs(20);

/// The time in the annotation of a slice, and the trace that follows from it.
fn trace(uid: &str, slice: &EndpointSlice) -> Result<(jiff::Timestamp, String)> {
    let annotations = slice.metadata.annotations.as_ref().context("no annotations")?;
    let triggered = annotations
        .get(LAST_CHANGE_TRIGGER_TIME_ANNOTATION)
        .context("no time")?
        .parse()?;
    Ok((triggered, ChangeIds::new(uid, triggered).trace_id()))
}

fn names(span: &Span) -> [&str; 4] {
    [
        span.resource["service.name"].as_str(),
        &span.name,
        span.attribute(attribute::NAMESPACE),
        span.attribute(attribute::SERVICE),
    ]
}

/// A Service and then a pod that becomes not ready: two traces, each from the time of the change to the write. While the receiver is
/// away, slices are written, and what is lost is counted; then spans arrive again.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_change_is_traced_from_its_time_to_the_write_of_its_slices() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let mut receiver = Receiver::start(server.folder()).await?;
    let endpoint = receiver.endpoint();
    let arguments = ["--tracing-endpoint", &endpoint];
    let controller = Controller::start(&kubeconfig, server.folder(), "traced", &arguments)?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "traced").await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    let service = fixture.service("web", json!({})).await?;
    let uid = service.metadata.uid.context("no UID")?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;

    let (triggered, id) = trace(&uid, &slices[0])?;
    let of = |id: String| move |span: &Span| span.trace_id == id;
    let span = receiver.span(SOON, "the trace of the Service", of(id)).await?;
    let binary = "multus-service-controller";
    assert_eq!(
        names(&span),
        [binary, "sync_endpointslices", &fixture.namespace, "web"]
    );
    assert_eq!(span.parent_span_id, "");
    assert_eq!(i128::from(span.start), triggered.as_nanosecond());
    assert!(span.end > span.start && span.error.is_none(), "{span:?}");
    assert_eq!(span.events, ["attempt started"]);
    assert_eq!(span.attribute(attribute::SERVICE_UID), uid);
    assert_eq!(span.attribute(attribute::SLICE_GENERATION), "1");
    for (count, want) in [
        (attribute::PODS, "1"),
        (attribute::ENDPOINTS, "1"),
        ("multusservice.endpoints.added", "1"),
        ("multusservice.endpointslices.created", "1"),
    ] {
        assert_eq!(span.attribute(count), want, "{count}");
    }
    assert_eq!(span.resource["service.instance.id"], "traced");

    receiver.stop();
    fixture
        .pod_status("web-1", "False", "2026-01-01T00:01:00Z")
        .await?;
    fixture.endpoints_until("web", &[("10.1.0.2", false)]).await?;
    let lost = "multus_service_trace_spans_lost_total{reason=\"export_failed\"} 1";
    testbed::wait::eventually(SOON, "the lost span to be counted", async || {
        let page = controller.metrics().await?;
        Ok(page.lines().any(|line| line == lost).then_some(()))
    })
    .await?;

    receiver.resume()?;
    fixture
        .pod_status("web-1", "True", "2026-01-01T00:02:00Z")
        .await?;
    let slices = fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let (_, id) = trace(&uid, &slices[0])?;
    let span = receiver.span(SOON, "the trace after the outage", of(id)).await?;
    assert_eq!(span.attribute("multusservice.endpointslices.updated"), "1");
    assert_eq!(span.attribute(attribute::SLICE_GENERATION), "3");
    Ok(())
}

/// With TLS, the receiver must have a certificate of the named authority. The file may appear and change later. A rate of 0 samples nothing.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn traces_go_only_to_a_receiver_of_the_named_authority() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let [ca, other] = [Ca::new("receivers")?, Ca::new("other")?];
    let identity = ca.issue("otelcol", None, Usage::Server, &["127.0.0.1"])?;
    let receiver = Receiver::start_with_tls(server.folder(), &identity).await?;
    let file = server.folder().join("receivers.crt");
    let (endpoint, ca_file) = (receiver.endpoint(), file.display().to_string());
    let arguments = ["--tracing-endpoint", &endpoint, "--tracing-ca-file", &ca_file];
    let controller = Controller::start(&kubeconfig, server.folder(), "secured", &arguments)?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "secured").await?;
    let lost = async |count: u32| {
        let want = format!("multus_service_trace_spans_lost_total{{reason=\"export_failed\"}} {count}");
        testbed::wait::eventually(SOON, "lost spans", async || {
            let page = controller.metrics().await?;
            Ok(page.lines().any(|line| line == want).then_some(()))
        })
        .await
    };

    fixture.service("without-file", json!({})).await?;
    lost(1).await?;
    std::fs::write(&file, other.certificate())?;
    fixture.service("other-authority", json!({})).await?;
    lost(2).await?;
    assert!(receiver.spans()?.is_empty());
    std::fs::write(&file, ca.certificate())?;
    fixture.service("web", json!({})).await?;
    let of_web = |span: &Span| span.attribute(attribute::SERVICE) == "web";
    receiver.span(SOON, "the span of web", of_web).await?;
    Ok(())
}

/// At rate 0 nothing is sampled, and without an endpoint nothing is sent; both write slices as ever.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_trace_that_is_not_sampled_is_not_sent() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let receiver = Receiver::start(server.folder()).await?;
    let endpoint = receiver.endpoint();
    let arguments = [
        "--tracing-endpoint",
        &endpoint,
        "--tracing-sampling-rate-per-million",
        "0",
    ];
    let controller = Controller::start(&kubeconfig, server.folder(), "unsampled", &arguments)?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "unsampled").await?;
    fixture.service("web", json!({})).await?;
    fixture.pod("web-1", "web", &["10.1.0.2"]).await?;
    fixture.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    // The controller stops within 20 s, after the export of what waits.
    controller.signal("TERM")?;
    let ended = || Ok(controller.has_ended());
    testbed::wait::until(Duration::from_secs(30), "the controller to stop", ended)?;
    assert!(receiver.spans()?.is_empty());
    Ok(())
}
