//! Latency of the first rules of pods, from the logs of the API server, the container runtimes and the proxies, which share a clock.

use anyhow::{Context as _, Result};
use api::names::{NAMESPACE, PROXY};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use testbed::cluster;
use testbed::cluster::layout::{Machine, Node, logs};

/// Time of the first event of pods, by `namespace/name`.
type Times = BTreeMap<String, DateTime<Utc>>;

/// Latencies of these pods, `namespace/name`; printed, because they depend on the machine. An error if a log does not report it for
/// each: then it does not say any more what is looked for in it.
pub(crate) fn report(which: &str, pods: &BTreeSet<String>) -> Result<()> {
    let synced = synced()?;
    for (what, from) in [("annotation", annotated()?), ("sandbox READY", ready())] {
        let took = pods.iter().map(|pod| {
            let from = from
                .get(pod)
                .with_context(|| format!("no log reports the {what} of {pod}"))?;
            let to = synced
                .get(pod)
                .with_context(|| format!("no log reports the rules of {pod}"))?;
            Ok((*to - *from).to_std().unwrap_or_default())
        });
        let mut took = took.collect::<Result<Vec<Duration>>>()?;
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
        let (median, p99) = (at(50).context("no pods")?, at(99).context("no pods")?);
        println!(
            "{which}: {what} to rules, {} pods: median {median:.1?}, p99 {p99:.1?}",
            took.len()
        );
    }
    Ok(())
}

/// The first rules of each pod.
fn synced() -> Result<Times> {
    let selector = format!("app.kubernetes.io/name={PROXY}");
    let log = cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "logs",
        "-l",
        &selector,
        "-c",
        "proxy",
        "--tail=-1",
    ])?;
    let lines = log.lines().filter(|line| line.contains("Synced rules"));
    Ok(earliest(lines.filter_map(|line| {
        Some((between(line, " pod=", " ")?, line.split(' ').next()?))
    })))
}

/// Multus wrote network-status.
fn annotated() -> Result<Times> {
    let events = cluster::audit_log().events()?;
    Ok(earliest(events.iter().filter_map(|event| {
        let object = &event["objectRef"];
        let is_status = object["resource"] == "pods" && object["subresource"] == "status";
        let is_of_multus = event["user"]["username"] == "multus-service-bed:multus";
        if !(is_status && is_of_multus) {
            return None;
        }
        let name = format!("{}/{}", object["namespace"].as_str()?, object["name"].as_str()?);
        Some((name, event["stageTimestamp"].as_str()?))
    })))
}

/// The runtime had made the sandbox.
fn ready() -> Times {
    let mut lines = Vec::new();
    for node in Node::ALL {
        for log in ["containerd.log", "crio.log"] {
            let text = std::fs::read_to_string(logs(Machine::Node(node)).join(log)).unwrap_or_default();
            let made = |line: &&str| line.contains("Ran pod sandbox") || line.contains("returns sandbox id");
            lines.extend(text.lines().filter(made).map(str::to_owned));
        }
    }
    earliest(lines.iter().filter_map(|line| {
        let name = between(line, "with infra container: ", "/POD").or_else(|| {
            Some(format!(
                "{}/{}",
                between(line, "Namespace:", ",")?,
                between(line, "{Name:", ",")?
            ))
        });
        Some((name?, between(line, "time=\"", "\"")?))
    }))
}

fn between(line: &str, before: &str, after: &str) -> Option<String> {
    Some(line.split_once(before)?.1.split(after).next()?.to_owned())
}

fn earliest(found: impl Iterator<Item = (String, impl AsRef<str>)>) -> Times {
    let mut times = Times::new();
    for (name, time) in found {
        if let Ok(time) = time.as_ref().parse() {
            times.entry(name).or_insert(time);
        }
    }
    times
}
