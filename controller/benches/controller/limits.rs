//! The dimensions to which Kubernetes itself is tested: kubernetes/community, sig-scalability/configs-and-limits/thresholds.md.

use crate::bed::Fixture;
use crate::cost::{cpu_seconds, idle, memory};
use crate::load::{PARALLEL, address, until_slices};
use crate::{latency, load, row};
use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::apiserver::Apiserver;

const NODES: usize = 5_000;
const PODS: usize = 150_000;
const SERVICES: usize = 10_000;
/// Endpoints of every fiftieth Service, and of the others.
const MANY: usize = 250;
const FEW: usize = 10;
/// Most endpoints in one slice.
const SLICE: usize = 100;

const SINCE: &str = "2026-01-01T00:00:00Z";

/// Number of objects of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dimensions {
    nodes: usize,
    pods: usize,
    services: usize,
}

impl Dimensions {
    /// A percentage of the thresholds; pods per node and per Service stay the same.
    pub(crate) fn scaled(percent: usize) -> Self {
        Self {
            nodes: NODES * percent / 100,
            pods: PODS * percent / 100,
            services: SERVICES * percent / 100,
        }
    }
}

fn endpoints(service: usize) -> usize {
    if service % 50 == 49 { MANY } else { FEW }
}

/// Measures start, lag, memory and idle cost at these sizes.
pub(crate) async fn measure(
    server: &Apiserver,
    fixture: &Fixture,
    kubeconfig: &Path,
    size: Dimensions,
) -> Result<()> {
    let name = format!(
        "{} Services of {FEW} endpoints, each 50th of {MANY}; {} pods, {} nodes",
        size.services, size.pods, size.nodes
    );
    populate(server, fixture, size).await?;
    let slices = (0..size.services)
        .map(|service| endpoints(service).div_ceil(SLICE))
        .sum();
    let started = Instant::now();
    let controller = load::start(server, kubeconfig).await?;
    let ready = started.elapsed();
    until_slices(fixture, slices).await?;
    row(
        &format!("cold start, {name}"),
        &format!(
            "{:.1?} until {slices} slices are written, {ready:.1?} of it until everything is listed",
            started.elapsed()
        ),
        &format!("{:.1} s of CPU", cpu_seconds(controller.child.pid)?),
    );
    memory(&controller, &name, "")?;
    drop(controller);
    let started = Instant::now();
    let controller = load::start(server, kubeconfig).await?;
    row(
        "restart beside right slices",
        &format!("{:.1?} until everything is listed", started.elapsed()),
        &format!("{:.1} s of CPU", cpu_seconds(controller.child.pid)?),
    );
    latency::pod_ready_to_slice(fixture, &name).await?;
    idle(server, &controller).await?;
    memory(&controller, &format!("{name}, restarted"), "")
}

async fn populate(server: &Apiserver, fixture: &Fixture, size: Dimensions) -> Result<()> {
    let began = Instant::now();
    server.store((0..size.nodes).map(node)).await?;
    let owners =
        (0..size.services).flat_map(|service| (0..endpoints(service)).map(move |n| (Some(service), n)));
    let all = owners.chain((0..).map(|n| (None, n))).take(size.pods);
    let all: Vec<_> = all.enumerate().collect();
    // A part at a time, so that not all of the text is in memory.
    for some in all.chunks(10_000) {
        let pods = some
            .iter()
            .map(|(number, (service, n))| pod(fixture, size, *number, *service, *n));
        server.store(pods).await?;
    }
    stream::iter(0..size.services)
        .map(|n| async move { fixture.service(&format!("svc-{n}"), json!({})).await.map(drop) })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    // A list as of now waits until the API server's cache has all of it.
    let pods: Api<Pod> = fixture.api();
    pods.list(&ListParams::default().limit(1)).await?;
    eprintln!("populated within {:.0?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

fn node(number: usize) -> (String, Value) {
    let name = format!("limit-{number}");
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("00000000-0000-4000-8001-{number:012x}"), "creationTimestamp": SINCE,
            "labels": {"topology.kubernetes.io/zone": format!("zone-{}", number % 3)}},
        "spec": {},
        "status": {"allocatable": {"cpu": "64"}, "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": format!("192.168.{}.{}", number / 250, 1 + number % 250)}]},
    });
    (format!("/registry/minions/{name}"), node)
}

/// A pod of a Service, or of none, as running and ready as a kubelet reports it.
fn pod(
    fixture: &Fixture,
    size: Dimensions,
    number: usize,
    service: Option<usize>,
    n: usize,
) -> (String, Value) {
    let app = service.map_or_else(|| "idle".to_owned(), |service| format!("svc-{service}"));
    let name = format!("{app}-{n}");
    let node = format!("limit-{}", number % size.nodes);
    let pod = load::manifest(fixture, &name, &app, &address(number), &node);
    load::stored(fixture, pod, number, "True", SINCE)
}
