//! Cost of the controller on a real etcd and kube-apiserver: latency, cold start, writes, idle, memory. `make bench-controller`
//!
//! Prints a Markdown table. Every figure that has a budget has its yardstick measured in the same run, so that it is a ratio and not a
//! property of the machine. Pods are objects that no kubelet runs: this is about the API, not about nodes. `BENCH_QUICK=1` leaves the
//! last 40,000 pods out, `BENCH_ONLY=few` or `many` all but one of the two parts; `BENCH_ONLY=limits` measures
//! beside as much as Kubernetes is tested with.

#[path = "../../tests/apiserver/bed.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the tests, which use more of it"
)]
mod bed;
mod cold_start;
mod cost;
mod latency;
mod limits;
mod lists;
mod load;
mod rolling;

use anyhow::Result;
use bed::{Scene, prepare};
use cost::{idle, memory};
use e2e::apiserver::{Apiserver, Options};
use load::{PODS_PER_SERVICE, SERVICES, crowd, populate, start, until_slices};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<()> {
    println!("commit {}\n", commit());
    println!("| what | result | yardstick in the same run, budget |\n|---|---|---|");
    let is_wanted = |part: &str| !std::env::var("BENCH_ONLY").is_ok_and(|only| only != part);
    if is_wanted("few") {
        few_services().await?;
    }
    if is_wanted("many") {
        many_services().await?;
    }
    if std::env::var("BENCH_ONLY").is_ok_and(|only| only == "limits") {
        at_the_limits().await?;
    }
    Ok(())
}

/// Half an hour, and 10 GB of memory for etcd and kube-apiserver, with all of it; `BENCH_PERCENT` takes a part.
async fn at_the_limits() -> Result<()> {
    let percent = std::env::var("BENCH_PERCENT").map_or(Ok(100), |percent| percent.parse())?;
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let scene = Scene::new(&server, "limits").await?;
    limits::measure(&server, &scene, &kubeconfig, limits::Dimensions::scaled(percent)).await
}

async fn few_services() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let scene = Scene::new(&server, "small").await?;
    populate(&scene, 50).await?;
    let controller = start(&server, &kubeconfig).await?;
    until_slices(&scene, 50).await?;
    latency::pod_ready_to_slice(&scene, "50 Services").await?;
    rolling::flip(&server, &scene).await?;
    rolling::back_to_back(&server, &scene).await?;
    rolling::storm(&server, &scene).await?;
    rolling::restart(&server, &scene).await?;
    idle(&server, &controller).await
}

async fn many_services() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let scene = Scene::new(&server, "large").await?;
    populate(&scene, SERVICES).await?;
    let controller = cold_start::start(&server, &scene, &kubeconfig).await?;
    memory(&controller, "10,000 pods", "budget 60 MB")?;
    lists::pods(&scene, SERVICES * PODS_PER_SERVICE).await?;
    latency::pod_ready_to_slice(&scene, "1,000 Services").await?;
    if std::env::var_os("BENCH_QUICK").is_none() {
        crowd(&scene, 40_000).await?;
        // The last pods may still be on their way.
        tokio::time::sleep(Duration::from_secs(5)).await;
        memory(&controller, "50,000 pods", "")?;
    }
    Ok(())
}

/// Prints one row of the table as soon as it is measured.
fn row(what: &str, result: &str, yardstick: &str) {
    println!("| {what} | {result} | {yardstick} |");
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
