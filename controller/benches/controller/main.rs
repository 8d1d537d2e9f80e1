//! Cost of the controller on a real etcd and kube-apiserver: latency, cold start, writes, idle, memory. `make bench-controller`
//!
//! Prints a Markdown table. Every figure that has a budget has a reference measured in the same run, so that it is a ratio and not a
//! property of the machine. Pods are objects that no kubelet runs: this is about the API, not about nodes. `BENCH_QUICK=1` leaves the
//! last 40,000 pods out, `BENCH_ONLY=few` or `many` all but one of the two parts; `BENCH_ONLY=limits` measures
//! at the sizes to which Kubernetes is tested.

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
use bed::{Fixture, prepare};
use cost::{idle, memory};
use load::{PODS_PER_SERVICE, SERVICES, crowd, populate, start, until_slices};
use std::time::Duration;
use testbed::apiserver::{Apiserver, Options};

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

/// Takes half an hour, and 10 GB of memory for etcd and kube-apiserver, at full size; `BENCH_PERCENT` reduces it.
async fn at_the_limits() -> Result<()> {
    let percent = std::env::var("BENCH_PERCENT").map_or(Ok(100), |percent| percent.parse())?;
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let fixture = Fixture::new(&server, "limits").await?;
    limits::measure(
        &server,
        &fixture,
        &kubeconfig,
        limits::Dimensions::scaled(percent),
    )
    .await
}

async fn few_services() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let fixture = Fixture::new(&server, "small").await?;
    populate(&fixture, 50).await?;
    let controller = start(&server, &kubeconfig).await?;
    until_slices(&fixture, 50).await?;
    latency::pod_ready_to_slice(&fixture, "50 Services").await?;
    rolling::flip(&server, &fixture).await?;
    rolling::back_to_back(&server, &fixture).await?;
    rolling::storm(&server, &fixture).await?;
    rolling::restart(&server, &fixture).await?;
    idle(&server, &controller).await
}

async fn many_services() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let kubeconfig = prepare(&server).await?;
    let fixture = Fixture::new(&server, "large").await?;
    populate(&fixture, SERVICES).await?;
    let controller = cold_start::start(&server, &fixture, &kubeconfig).await?;
    memory(&controller, "10,000 pods", "budget 60 MB")?;
    lists::pods(&fixture, SERVICES * PODS_PER_SERVICE).await?;
    latency::pod_ready_to_slice(&fixture, "1,000 Services").await?;
    if std::env::var_os("BENCH_QUICK").is_none() {
        crowd(&fixture, 40_000).await?;
        // The last pods may not be observed yet.
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
