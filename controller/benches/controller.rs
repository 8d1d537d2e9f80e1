//! What the controller costs on a real etcd and apiserver: latency, cold start, writes, idle, memory.
//!
//! Prints a Markdown table. Every figure that has a budget has its yardstick measured in the same run, so that it is a ratio and not a
//! property of the machine. `BENCH_FULL=1` adds 40,000 further pods.

#[path = "../tests/apiserver/bed.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the tests, which use more of it"
)]
mod bed;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use api::names;
use bed::{Controller, Scene, prepare};
use e2e::apiserver::{Apiserver, Options};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

const FLIPS: usize = 200;
const PODS_PER_SERVICE: usize = 10;
const COLD_SERVICES: usize = 1000;
const ROLLING_PODS: usize = 500;
const PARALLEL: usize = 32;

#[tokio::main]
async fn main() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    println!(
        "commit {}\n\n| what | result | yardstick in the same run |\n|---|---|---|",
        commit()
    );

    let small = Scene::new(&server, "small").await?;
    populate(&small, 0..50).await?;
    let controller = start(&server, &kubeconfig, "small").await?;
    until_slices(&small, 50).await?;
    latency(&small, "50 Services").await?;
    flip_writes(&server, &small).await?;
    rolling(&server, &small).await?;
    idle(&server, &controller).await?;
    drop(controller);

    let large = Scene::new(&server, "large").await?;
    populate(&large, 0..COLD_SERVICES).await?;
    let bare = bare_creates(&large).await?;
    let started = Instant::now();
    let controller = start(&server, &kubeconfig, "large").await?;
    let ready = started.elapsed();
    until_slices(&large, COLD_SERVICES).await?;
    let took = started.elapsed();
    row(
        "cold start, 1,000 Services × 10 pods",
        &format!("{took:.2?}, of which {ready:.2?} until everything was listed"),
        &format!(
            "a bare client's 1,000 creates {bare:.2?}: ratio {:.2}",
            took.as_secs_f64() / bare.as_secs_f64()
        ),
    );
    row(
        "memory (RSS) at 11,000 pods",
        &rss(controller.pid)?,
        "budget 60 MB at 10,000",
    );
    latency(&large, "1,000 Services").await?;
    if std::env::var_os("BENCH_FULL").is_some() {
        let crowd = Scene::new(&server, "crowd").await?;
        pods(
            &crowd,
            (0..40_000).map(|n| (format!("idle-{n}"), "idle".to_owned(), address(n))),
        )
        .await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        row("memory (RSS) at 51,000 pods", &rss(controller.pid)?, "");
    }
    Ok(())
}

fn row(what: &str, result: &str, yardstick: &str) {
    println!("| {what} | {result} | {yardstick} |");
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    output
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}

async fn start(server: &Apiserver, kubeconfig: &Path, name: &str) -> Result<Controller> {
    let arguments = ["--leader-elect", "false", "--log-level", "info"];
    let controller = Controller::start(kubeconfig, server.folder(), name, &arguments[..2])?;
    controller.wait_ready().await?;
    Ok(controller)
}

fn address(n: usize) -> String {
    format!("10.1.{}.{}", n / 250 % 250, 1 + n % 250)
}

/// Services `svc-n`, each with its own ready pods.
async fn populate(scene: &Scene, services: std::ops::Range<usize>) -> Result<()> {
    let of = |service: usize| {
        (0..PODS_PER_SERVICE).map(move |n| {
            (
                format!("svc-{service}-{n}"),
                format!("svc-{service}"),
                address(service * PODS_PER_SERVICE + n),
            )
        })
    };
    pods(scene, services.clone().flat_map(of)).await?;
    stream::iter(services)
        .map(|n| async move { scene.service(&format!("svc-{n}"), json!({})).await.map(drop) })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

async fn pods(scene: &Scene, pods: impl Iterator<Item = (String, String, String)>) -> Result<()> {
    stream::iter(pods)
        .map(|(name, app, address)| async move { scene.pod(&name, &app, &[&address]).await })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

/// Waits until this many of our slices hold all their endpoints; by a watch, which costs the API server little.
async fn until_slices(scene: &Scene, count: usize) -> Result<()> {
    let ours =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY));
    let mut slices = Box::pin(watcher(scene.api::<EndpointSlice>(), ours).applied_objects());
    let mut full = BTreeSet::new();
    let wait = async {
        while full.len() < count {
            let slice = slices.try_next().await?.context("the watch ended")?;
            if slice.endpoints.len() >= PODS_PER_SERVICE {
                full.insert(slice.metadata.name);
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(5), wait)
        .await
        .context("not all slices were written")?
}

/// Pod Ready → slice written: from the answer to the pod's status change until a watch sees the slice. Yardstick: from a slice update of
/// our own to the same watch.
async fn latency(scene: &Scene, name: &str) -> Result<()> {
    let slices: Api<EndpointSlice> = scene.api();
    let ours = format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY);
    let version = slices
        .list(&ListParams::default().labels(&ours).limit(1))
        .await?
        .metadata
        .resource_version
        .context("no version")?;
    let mut events = Box::pin(
        slices
            .watch(&WatchParams::default().labels(&ours), &version)
            .await?,
    );
    let (mut measured, mut bare) = (Vec::new(), Vec::new());
    for flip in 0..FLIPS {
        let pod = format!("svc-{}-0", flip % 50);
        let ready = if flip / 50 % 2 == 0 { "False" } else { "True" };
        scene.pod_status(&pod, ready, &jiff_time(flip)).await?;
        let start = Instant::now();
        let slice = next_slice(&mut events).await?;
        measured.push(start.elapsed());
        if flip % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut copy = slice.clone();
            copy.metadata
                .annotations
                .get_or_insert_default()
                .insert("bench".into(), flip.to_string());
            let start = Instant::now();
            slices
                .replace(
                    slice.metadata.name.as_deref().unwrap_or_default(),
                    &PostParams::default(),
                    &copy,
                )
                .await?;
            next_slice(&mut events).await?;
            bare.push(start.elapsed());
        }
    }
    row(
        &format!("pod Ready → slice seen, {name}"),
        &format!(
            "p50 {:.1?}, p99 {:.1?}",
            quantile(&mut measured, 0.5),
            quantile(&mut measured, 0.99)
        ),
        &format!(
            "one slice write seen: p50 {:.1?}, p99 {:.1?}; budget p99 ≤ 50 ms + that",
            quantile(&mut bare, 0.5),
            quantile(&mut bare, 0.99)
        ),
    );
    Ok(())
}

fn jiff_time(n: usize) -> String {
    format!("2026-01-02T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60)
}

async fn next_slice(
    events: &mut (impl futures::Stream<Item = Result<WatchEvent<EndpointSlice>, kube::Error>> + Unpin),
) -> Result<EndpointSlice> {
    let wait = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(slice) | WatchEvent::Added(slice) = event {
                return Ok(slice);
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .context("no slice was written")?
}

fn quantile(times: &mut [Duration], at: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred samples"
    )]
    let index = ((times.len() - 1) as f64 * at).round() as usize;
    times.get(index).copied().unwrap_or_default()
}

async fn flip_writes(server: &Apiserver, scene: &Scene) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = slice_writes(server)?;
    scene
        .pod_status("svc-7-3", "False", "2026-01-03T00:00:00Z")
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    row(
        "writes per endpoint flip",
        &(slice_writes(server)? - before).to_string(),
        "budget 1",
    );
    Ok(())
}

/// A Deployment's rolling restart with a quarter surge: new pods become ready, then as many old ones go.
async fn rolling(server: &Apiserver, scene: &Scene) -> Result<()> {
    pods(
        scene,
        (0..ROLLING_PODS).map(|n| (format!("old-{n}"), "rolling".to_owned(), address(20_000 + n))),
    )
    .await?;
    scene.service("rolling", json!({})).await?;
    let total = |slices: &[EndpointSlice]| slices.iter().map(|s| s.endpoints.len()).sum::<usize>();
    scene
        .slices_until("rolling", "500 endpoints", |slices| total(slices) == ROLLING_PODS)
        .await?;
    let before = slice_writes(server)?;
    let started = Instant::now();
    for wave in 0..4 {
        let quarter = || (wave * ROLLING_PODS / 4)..((wave + 1) * ROLLING_PODS / 4);
        pods(
            scene,
            quarter().map(|n| (format!("new-{n}"), "rolling".to_owned(), address(30_000 + n))),
        )
        .await?;
        let old = scene.api::<Pod>();
        stream::iter(quarter())
            .map(|n| {
                let old = old.clone();
                async move {
                    old.delete(&format!("old-{n}"), &DeleteParams::default().grace_period(0))
                        .await
                        .map(drop)
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
    }
    let (lag, took) = (Instant::now(), started.elapsed());
    let is_new = |slice: &EndpointSlice| {
        let names = slice
            .endpoints
            .iter()
            .filter_map(|e| e.target_ref.as_ref()?.name.as_deref());
        names.into_iter().all(|name| name.starts_with("new-"))
    };
    scene
        .slices_until("rolling", "500 new endpoints", |s| {
            total(s) == ROLLING_PODS && s.iter().all(is_new)
        })
        .await?;
    let writes = slice_writes(server)? - before;
    row(
        "rolling restart of 500 pods",
        &format!(
            "{writes} slice writes, last one {:.1?} after the last pod",
            lag.elapsed()
        ),
        &format!("the pods' own changes took {took:.1?}"),
    );
    Ok(())
}

async fn idle(server: &Apiserver, controller: &Controller) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (writes, ticks) = (all_writes(server)?, cpu_ticks(controller.pid)?);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let (writes, ticks) = (all_writes(server)? - writes, cpu_ticks(controller.pid)? - ticks);
    // USER_HZ is 100 on every Linux architecture we build for, so a tick in 60 s is 1/60 %.
    let percent = f64::from(u32::try_from(ticks)?) / 60.0;
    row(
        "idle, 60 s",
        &format!("{writes} writes, {percent:.2} % of a core"),
        "budget 0 writes but the Lease, < 0.2 %",
    );
    Ok(())
}

/// The same 1,000 slices by a client that does nothing else, with as many requests at once as the controller.
async fn bare_creates(scene: &Scene) -> Result<Duration> {
    let slices: Api<EndpointSlice> = scene.api();
    let made = |n: usize| {
        let endpoint = |i: usize| {
            json!({"addresses": [address(n * 10 + i)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1", "zone": "zone-a", "targetRef": {"kind": "Pod", "namespace": scene.namespace, "name": format!("svc-{n}-{i}")}})
        };
        json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": (0..PODS_PER_SERVICE).map(endpoint).collect::<Vec<_>>(),
            "metadata": {"generateName": format!("svc-{n}-bare-"), "labels": {"bench": "bare"}}})
    };
    let objects: Vec<EndpointSlice> = (0..COLD_SERVICES)
        .map(|n| serde_json::from_value(made(n)))
        .collect::<Result<_, _>>()?;
    let started = Instant::now();
    stream::iter(objects)
        .map(|slice| {
            let slices = slices.clone();
            async move { slices.create(&PostParams::default(), &slice).await.map(drop) }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let took = started.elapsed();
    slices
        .delete_collection(
            &DeleteParams::default(),
            &ListParams::default().labels("bench=bare"),
        )
        .await?;
    Ok(took)
}

fn writes_by_controller(server: &Apiserver, wanted: impl Fn(&Value) -> bool) -> Result<usize> {
    let log = std::fs::read_to_string(server.audit_log())?;
    let ours = log
        .lines()
        .filter(|line| line.contains("multus-service:multus-service-controller"));
    let writes = ours.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(writes
        .filter(|r| matches!(r["verb"].as_str(), Some("create" | "update" | "patch" | "delete")) && wanted(r))
        .count())
}

fn slice_writes(server: &Apiserver) -> Result<usize> {
    writes_by_controller(server, |request| {
        request["objectRef"]["resource"] == "endpointslices"
    })
}

fn all_writes(server: &Apiserver) -> Result<usize> {
    writes_by_controller(server, |request| request["objectRef"]["resource"] != "leases")
}

fn rss(pid: u32) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("no such field")?;
        Ok(line
            .split_whitespace()
            .next()
            .context("no value")?
            .parse::<f64>()?
            / 1024.0)
    };
    Ok(format!(
        "{:.1} MB (peak {:.1} MB)",
        field("VmRSS:")?,
        field("VmHWM:")?
    ))
}

fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no stat")?.1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |n: usize| {
        fields
            .get(n)
            .context("short stat")
            .and_then(|f| Ok(f.parse::<u64>()?))
    };
    Ok(ticks(11)? + ticks(12)?)
}
