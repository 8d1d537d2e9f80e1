//! `cluster up`: starts a working cluster from any state.
//!
//! Writes: everything of the cluster. Each step looks first and does only what is missing, so a second `up` is a check
//! and an `up` after a crash is a repair.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde_json::Value;

use super::layout::{self, DNS, Machine, Node, state};
use super::lock::Lock;
use super::machine::{self, Plan};
use super::options::Choices;
use super::runtime::Runtime;
use super::{addons, cgroup, control, down, image_load, network, node, node_exec, preflight};
use crate::images::{self, Image};
use crate::tools::{self, Tool, ToolDir};
use crate::{command, debian, wait};

const PACKAGES: &[&str] = &[
    "iproute2",
    "util-linux",
    "nftables",
    "iptables",
    "conntrack",
    "ethtool",
    "socat",
    "kmod",
    "procps",
    "busybox-static",
];
const TOOLS: [&Tool; 11] = [
    &tools::ETCD,
    &tools::KUBE_APISERVER,
    &tools::KUBECTL,
    &tools::KUBE_CONTROLLER_MANAGER,
    &tools::KUBE_SCHEDULER,
    &tools::KUBELET,
    &tools::KUBE_PROXY,
    &tools::CNI,
    &tools::MULTUS,
    &tools::WHEREABOUTS,
    &tools::COREDNS,
];
// Far above what an idle machine needs (the whole of a warm start is a quarter of a minute): a busy one must not fail.
const APISERVER: Duration = Duration::from_mins(3);
const NODES: Duration = Duration::from_mins(3);
const ADDONS: Duration = Duration::from_mins(3);

/// Options of `up`.
#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    /// The nodes' runtimes; by default those of the running cluster, else containerd 1.6 and CRI-O.
    pub runtimes: Option<[Runtime; 2]>,
    /// Removes the cluster and its data first.
    pub fresh: bool,
}

const DEFAULT_RUNTIMES: [Runtime; 2] = [Runtime::Containerd1, Runtime::Crio];

/// Brings the cluster up, and returns when both nodes are Ready and DNS answers on both. `say` receives every step.
pub fn up(options: &UpOptions, say: &dyn Fn(&str)) -> Result<()> {
    let _lock = Lock::take()?;
    let steps = Steps {
        since: Instant::now(),
        say,
    };
    preflight::machine(state(), !tools::are_built(&TOOLS)?)?;
    if options.fresh {
        down::remove(say)?;
        steps.done("the old cluster is removed");
    }
    fs::create_dir_all(state()).with_context(|| format!("cannot create {}", state().display()))?;
    let loaded = Choices::load()?;
    if let Some(choices) = &loaded {
        choices.check(options.runtimes)?;
    }
    let runtimes = loaded
        .as_ref()
        .map(|choices| choices.runtimes)
        .or(options.runtimes)
        .unwrap_or(DEFAULT_RUNTIMES);
    let (tools, images) = ingredients(runtimes, say)?;
    preflight::kernel_and_network(network::is_present()?, say)?;
    steps.done("the machine is fit, programs and images are there");

    let choices = loaded.unwrap_or_else(|| Choices::decide(runtimes, say));
    choices.save()?;
    control::prepare()?;
    ensure_network(&choices, &steps)?;
    start(&choices, &tools, &images, &steps)
}

/// Packages, programs and images: what later starts need neither network nor compiler for.
fn ingredients(runtimes: [Runtime; 2], say: &dyn Fn(&str)) -> Result<(ToolDir, Vec<Image>)> {
    let mut packages = PACKAGES.to_vec();
    packages.extend(runtimes.iter().flat_map(|runtime| runtime.packages()));
    debian::ensure(&packages, say)?;
    let mut wanted = TOOLS.to_vec();
    wanted.extend(runtimes.iter().filter_map(|runtime| runtime.tool()));
    Ok((tools::ensure(&wanted, say)?, images::bed_images(say)?))
}

fn ensure_network(choices: &Choices, steps: &Steps<'_>) -> Result<()> {
    if network::is_present()? {
        return Ok(());
    }
    // Half a network, or processes in namespaces that are gone: begin again, with the data kept.
    cgroup::remove(None)?;
    network::remove()?;
    network::create(choices.families)?;
    steps.done("network");
    Ok(())
}

fn start(choices: &Choices, tools: &ToolDir, images: &[Image], steps: &Steps<'_>) -> Result<()> {
    let begin = Utc::now();
    let control_started = ensure_machine(&control::plan(choices, tools)?, false, steps)?;
    let mut started = Vec::new();
    for node in Node::ALL {
        let changed = node::prepare(node, choices, tools)?;
        if ensure_machine(&node::plan(node, choices, tools)?, changed, steps)? {
            started.push(node);
        }
    }
    wait_apiserver(tools, control_started)?;
    steps.done("apiserver ready");
    image_load::load(images, choices, tools, steps.say)?;
    steps.done("images loaded");
    wait::until(ADDONS, "the addons to be accepted", || {
        let mut kubectl = super::kubectl_command(tools)?;
        kubectl.arg("--request-timeout=10s");
        addons::apply(kubectl)?;
        Ok(true)
    })?;
    steps.done("CRDs, Multus' RBAC and CoreDNS applied");
    for node in Node::ALL {
        wait_node(node, tools, started.contains(&node).then_some(begin))?;
        steps.done(&format!("{node} Ready"));
    }
    wait_dns(tools)?;
    steps.done("DNS answers on both nodes");
    Ok(())
}

/// Starts a machine that does not run, or that runs something else than planned. Says whether it did.
fn ensure_machine(plan: &Plan, changed: bool, steps: &Steps<'_>) -> Result<bool> {
    let name = plan.machine.name();
    match machine::pid(plan.machine)? {
        Some(_) if !changed && machine::is_current(plan)? => return Ok(false),
        Some(_) => (steps.say)(&format!(
            "{name} runs with other programs or settings than this checkout has: restarting it"
        )),
        None => {}
    }
    machine::stop(plan.machine)?;
    machine::start(plan)?;
    steps.done(&format!("{name} started"));
    Ok(true)
}

fn wait_apiserver(tools: &ToolDir, started: bool) -> Result<()> {
    let log = layout::logs(Machine::Control).join("kube-apiserver.log");
    let limit = if started {
        APISERVER
    } else {
        Duration::from_secs(30)
    };
    wait::until(limit, "kube-apiserver to become ready", || {
        super::ask(tools, &["get", "--raw=/readyz"])?;
        Ok(true)
    })
    .map_err(command::with_tail(&log, 15))
}

/// Waits for Ready; after a start, for a Ready condition reported by the new kubelet.
fn wait_node(node: Node, tools: &ToolDir, started: Option<DateTime<Utc>>) -> Result<()> {
    let log = layout::logs(Machine::Node(node)).join("kubelet.log");
    wait::until(NODES, &format!("{node} to be Ready"), || {
        let object = super::ask(tools, &["get", "node", &node.to_string(), "-o", "json"])?;
        Ok(is_ready(&serde_json::from_str(&object)?, started))
    })
    .map_err(command::with_tail(&log, 15))
}

/// Waits until a kubelet that started after `since` says that its node is Ready.
pub(super) fn wait_node_ready(node: Node, since: DateTime<Utc>) -> Result<()> {
    wait_node(node, &tools::ensure(&[&tools::KUBECTL], &|_| {})?, Some(since))
}

fn is_ready(node: &Value, since: Option<DateTime<Utc>>) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let Some(ready) = ready.filter(|condition| condition["status"] == "True") else {
        return false;
    };
    let heartbeat = ready["lastHeartbeatTime"]
        .as_str()
        .and_then(|time| time.parse::<DateTime<Utc>>().ok());
    // Kubernetes writes whole seconds.
    let since = since.and_then(|since| since.duration_trunc(TimeDelta::seconds(1)).ok());
    since.is_none_or(|since| heartbeat.is_some_and(|heartbeat| heartbeat >= since))
}

/// A real question, not CoreDNS' readiness: after a restart that is for a while what it was before.
fn wait_dns(tools: &ToolDir) -> Result<()> {
    const QUESTION: [&str; 5] = [
        "busybox",
        "nslookup",
        "-type=a",
        "kubernetes.default.svc.cluster.local.",
        DNS,
    ];
    for node in Node::ALL {
        wait::until(ADDONS, &format!("CoreDNS to answer on {node}"), || {
            node_exec(&node.to_string(), &QUESTION)?;
            Ok(true)
        })
        .map_err(|error| {
            let pods = ["-n", "kube-system", "describe", "pods", "-l", "k8s-app=kube-dns"];
            let pods = super::ask(tools, &pods).unwrap_or_else(|error| format!("{error:#}"));
            anyhow!("{error:#}\n{pods}")
        })?;
    }
    Ok(())
}

struct Steps<'a> {
    since: Instant,
    say: &'a dyn Fn(&str),
}

impl Steps<'_> {
    fn done(&self, what: &str) {
        (self.say)(&format!("{:6.1} s  {what}", self.since.elapsed().as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::reported_after_the_start("True", "2026-11-24T10:00:05Z", true)]
    #[case::in_the_second_of_the_start("True", "2026-11-24T10:00:00Z", true)]
    #[case::stale("True", "2026-11-24T09:59:59Z", false)]
    #[case::not_ready("False", "2026-11-24T10:00:05Z", false)]
    fn ready_counts_only_when_reported_by_the_new_kubelet(
        #[case] status: &str,
        #[case] heartbeat: &str,
        #[case] want: bool,
    ) {
        let since = "2026-11-24T10:00:00.7Z".parse().ok();
        let node = json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "False"},
            {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat},
        ]}});
        assert_eq!(is_ready(&node, since), want);
    }
}
