//! The operator on real nodes: its configuration reaches containers and kernels, also when processes are killed meanwhile.

use anyhow::{Context as _, Result, ensure};
use api::names::{NAMESPACE, OPERATOR, PROXY};
use e2e::admin::set_spec;
use e2e::demo::install;
use e2e::demo::output::Narrator;
use e2e::demo::scenario::Attached;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(4);
/// Resident bytes.
const MEMORY: u64 = 40_000_000;

fn get(args: &[&str]) -> Result<Value> {
    let all = [args, &["-o", "json"]].concat();
    Ok(serde_json::from_str(&cluster::kubectl(&all)?)?)
}

fn config() -> Result<Value> {
    get(&["get", "msc", "cluster"])
}

fn condition<'a>(config: &'a Value, type_: &str) -> Option<&'a Value> {
    let mut conditions = config["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == type_)
}

/// Waits until what the configuration says is in effect.
pub(crate) fn until_settled() -> Result<()> {
    wait::until(PATIENCE, "the configuration to be in effect", || {
        let config = config()?;
        let is = |type_: &str, status: &str| {
            condition(&config, type_).is_some_and(|condition| condition["status"] == status)
        };
        Ok(
            config["status"]["observedGeneration"] == config["metadata"]["generation"]
                && is("Available", "True")
                && is("Progressing", "False")
                && is("Degraded", "False"),
        )
    })
}

/// Scales the operator.
pub(crate) fn scale(replicas: u8) -> Result<()> {
    let operator = format!("deployment/{OPERATOR}");
    let replicas = format!("--replicas={replicas}");
    cluster::kubectl(&["-n", NAMESPACE, "scale", &operator, &replicas])?;
    Ok(())
}

/// Without a moment to end: what the node does when its memory is short.
pub(crate) fn kill() -> Result<()> {
    let operator = format!("app.kubernetes.io/name={OPERATOR}");
    let now = ["--force", "--grace-period=0"];
    cluster::kubectl(&[&["-n", NAMESPACE, "delete", "pods", "-l", &operator], &now[..]].concat())?;
    Ok(())
}

/// Kills it between its first write for this version and the last proxy that runs it.
pub(crate) fn kill_once_it_rolls_out(version: &str) -> Result<()> {
    wait::until(PATIENCE, &format!("the roll-out of {version} to begin"), || {
        let config = config()?;
        Ok(config["status"]["targetVersion"] == version
            && condition(&config, "Progressing").is_some_and(|condition| condition["status"] == "True"))
    })?;
    kill()
}

pub(crate) fn until_rules(pod: &Attached, wanted: bool) -> Result<()> {
    wait::until(
        PATIENCE,
        &format!("rules in the pod to be there: {wanted}"),
        || Ok(pod.rules()?.is_empty() != wanted),
    )
}

/// Node and process of the one that runs.
fn process() -> Result<(String, String)> {
    let selector = format!("app.kubernetes.io/name={OPERATOR}");
    wait::value(PATIENCE, "an operator that runs", || {
        let pods = get(&["-n", NAMESPACE, "get", "pods", "-l", &selector])?;
        let mut pods = pods["items"].as_array().into_iter().flatten();
        let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let Some(pod) = pod else { return Ok(None) };
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).context("no pod yet");
        let node = text("/spec/nodeName")?;
        let pid = crate::proxy::pid(node, text("/metadata/uid")?)?;
        Ok(Some((node.to_owned(), pid)))
    })
}

/// As a bug would end it: its container is started again, in the same pod.
pub(crate) fn crash() -> Result<()> {
    let (node, pid) = process()?;
    cluster::node_exec(&node, &["kill", "-9", &pid])?;
    Ok(())
}

/// Memory of the process of the shipped image after the tests so far, including the pages of the program.
pub(crate) fn its_memory_is_bounded() -> Result<()> {
    let (node, pid) = process()?;
    let status = cluster::node_exec(&node, &["cat", &format!("/proc/{pid}/status")])?;
    let kib = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number
            .with_context(|| format!("no {field} in {status}"))?
            .parse()?)
    };
    let (now, most) = (kib("VmRSS:")?, kib("VmHWM:")?);
    println!("the operator occupies {now} KiB, and never occupied more than {most} KiB");
    ensure!(now * 1024 <= MEMORY, "{now} KiB");
    Ok(())
}

/// Killed in the middle of a change, it ends the change.
pub(crate) fn a_change_survives_its_death() -> Result<()> {
    for backend in ["IPTables", "Auto"] {
        set_spec(&json!({ "proxy": { "backend": backend } }))?;
        kill()?;
        until_settled()?;
        let proxy = get(&["-n", NAMESPACE, "get", "daemonset", PROXY])?;
        let args = proxy["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        ensure!(args.contains(&format!("--backend={backend}")), "{args}");
    }
    Ok(())
}

/// An image that no node can pull: the node is named, and the next change repairs it.
pub(crate) fn a_bad_image_is_named_and_repaired() -> Result<()> {
    set_spec(&json!({ "proxy": { "image": "registry.invalid/proxy:none" } }))?;
    wait::until(PATIENCE, "the node without an image to be named", || {
        let config = config()?;
        let unhealthy = config.pointer("/status/proxy/unhealthyNodes/0");
        let Some(unhealthy) = unhealthy else {
            return Ok(false);
        };
        let named = unhealthy["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("node"));
        let reason = unhealthy["reason"].as_str().unwrap_or_default();
        Ok(named && ["ErrImagePull", "ImagePullBackOff"].contains(&reason))
    })?;
    let config = config()?;
    let progressing = condition(&config, "Progressing").context("no Progressing")?;
    ensure!(
        progressing["status"] == "True",
        "a rollout that cannot complete is reported as complete: {progressing}"
    );
    set_spec(&json!({ "proxy": { "image": null } }))?;
    until_settled()
}

/// A node that leaves the placement is cleaned in the kernel; one that comes back is served.
pub(crate) fn a_node_that_leaves_is_cleaned(client: &Attached) -> Result<()> {
    let other = if client.node == "node1" { "node2" } else { "node1" };
    until_rules(client, true)?;
    set_spec(&json!({ "proxy": { "nodeSelector": { "kubernetes.io/hostname": other } } }))?;
    kill()?;
    wait::until(PATIENCE, "the label of the node to go", || {
        let node = get(&["get", "node", &client.node])?;
        Ok(node["metadata"]["labels"].get(api::names::RULES_LABEL).is_none())
    })?;
    ensure!(
        client.rules()?.is_empty(),
        "the node is reported as clean and is not"
    );
    set_spec(&json!({ "proxy": { "nodeSelector": null } }))?;
    until_settled()?;
    until_rules(client, true)
}

/// Deleted while no operator runs; the next one cleans the kernels before it lets the object go. It crashes in the middle, and
/// in the installation that follows.
pub(crate) fn a_deletion_waits_for_the_operator(narrator: &Narrator, client: &Attached) -> Result<()> {
    scale(0)?;
    cluster::kubectl(&["delete", "msc", "cluster", "--wait=false"])?;
    ensure!(!client.rules()?.is_empty(), "somebody cleaned");
    scale(1)?;
    let began = Instant::now();
    wait::until(PATIENCE, "the removal to begin", || {
        let configs = get(&["get", "msc"])?;
        let config = configs["items"].get(0);
        Ok(config.is_none_or(|config| {
            condition(config, "Progressing").is_some_and(|progressing| progressing["reason"] == "Removing")
        }))
    })?;
    crash()?;
    wait::until(PATIENCE, "the configuration to go", || {
        Ok(cluster::kubectl(&["get", "msc", "-o", "name"])?.is_empty())
    })?;
    println!("removed {:.1?} after the operator came back", began.elapsed());
    ensure!(client.rules()?.is_empty(), "rules are left");
    install::apply_config(narrator)?;
    crash()?;
    install::config(narrator)?;
    until_rules(client, true)
}
