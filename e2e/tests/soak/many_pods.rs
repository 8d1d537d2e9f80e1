//! Many pods on two nodes: how soon each has its rules, while several start at the same time, and one by one beside all the others.

use crate::latency;
use crate::proxy::Proxy;
use crate::{PATIENCE, left, manifest, none_left};
use anyhow::{Context as _, Result, ensure};
use e2e::demo::scenario;
use std::collections::BTreeSet;
use testbed::{cluster, wait};

/// Pods of the crowd unless `SOAK_CROWD` says otherwise; a node takes about a hundred.
const CROWD: usize = 50;
/// Number of pods that start, or end, at the same time: creating fifty sandboxes at once, or removing two hundred, takes all of two CPUs
/// for seconds, and then no process responds in time.
const STEP: usize = 5;
/// Those that come one by one when the crowd is there.
const LATE: usize = 20;

/// The crowd comes, is served, and goes.
pub(crate) fn comes_and_goes() -> Result<()> {
    let crowd = match std::env::var("SOAK_CROWD") {
        Ok(crowd) => crowd.parse().context("SOAK_CROWD is no number of pods")?,
        Err(_) => CROWD,
    };
    let manifest = manifest();
    cluster::kubectl(&["apply", "-f", &manifest])?;
    (STEP..crowd).step_by(STEP).chain([crowd]).try_for_each(scale)?;
    let early = served(crowd)?;
    (crowd + 1..=crowd + LATE).try_for_each(scale)?;
    let all = served(crowd + LATE)?;
    latency::report(&format!("{STEP} at a time"), &early)?;
    let late = all.difference(&early).cloned().collect();
    latency::report(&format!("one by one beside {crowd}"), &late)?;
    (0..crowd).step_by(STEP).rev().try_for_each(scale_down)?;
    cluster::kubectl(&["delete", "-f", &manifest, "--timeout=180s"])?;
    none_left()
}

fn scale(replicas: usize) -> Result<()> {
    let kubectl = |args: &[&str]| cluster::kubectl(&[&["-n", scenario::NAMESPACE], args].concat());
    kubectl(&["scale", "deployment/churn", &format!("--replicas={replicas}")])?;
    kubectl(&["rollout", "status", "deployment/churn", "--timeout=300s"])?;
    Ok(())
}

fn scale_down(replicas: usize) -> Result<()> {
    scale(replicas)?;
    wait::until(PATIENCE, "pods of the crowd to be gone", || {
        Ok(left()?.lines().count() <= replicas)
    })
}

/// The pods of the crowd, when so many have their rules.
fn served(crowd: usize) -> Result<BTreeSet<String>> {
    wait::value(PATIENCE, "each pod of the crowd to have its rules", || {
        let mut served = BTreeSet::new();
        for node in cluster::NODES {
            let state = Proxy::on(node)?.state()?;
            let pods = state["pods"].as_array().context("no pods")?;
            let applied = pods.iter().filter(|pod| pod["progress"] == "Applied");
            let names = applied.filter_map(|pod| pod["pod"].as_str());
            served.extend(
                names
                    .filter(|name| name.starts_with("demo/churn-"))
                    .map(str::to_owned),
            );
        }
        ensure!(served.len() == crowd, "{} of {crowd} have", served.len());
        Ok(Some(served))
    })
}
