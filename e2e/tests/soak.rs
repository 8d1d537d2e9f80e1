//! Churn of pods, Services and endpoints on the two-node cluster, under load, for as long as `SOAK_MINUTES` says (30 by default):
//! no connection of somebody else fails, and afterwards everything is as it was.

#[path = "soak/latency.rs"]
mod latency;
#[path = "soak/many_pods.rs"]
mod many_pods;
#[path = "lifecycle/proxy.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the life cycle, which use more of it"
)]
mod proxy;

use anyhow::{Context as _, Result, ensure};
use e2e::demo::{installed, scenario};
use e2e::traffic::Traffic;
use proxy::{Proxy, Resources};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(2);

/// A process may keep a little more than at its start: allocators and thread pools fill up once.
const MORE_DESCRIPTORS: u64 = 4;
const MORE_THREADS: u64 = 4;
const MORE_MEMORY_KIB: u64 = 12 << 10;

/// Values that must be equal afterwards.
struct Node {
    proxy: Proxy,
    resources: Resources,
}

impl Node {
    fn look(name: &str) -> Result<Self> {
        each_namespace_has_a_pod(name)?;
        let proxy = Proxy::on(name)?;
        Ok(Self {
            resources: proxy.resources()?,
            proxy,
        })
    }
}

/// A pod that was deleted by force is gone before the runtime has taken its network namespace away.
fn each_namespace_has_a_pod(node: &str) -> Result<()> {
    let what = format!("{node} to have as many network namespaces as pods with one");
    // CRI-O keeps a file of the node's own namespace, too.
    let list = "for n in /run/netns/*; do [ $n -ef /proc/self/ns/net ] || echo $n; done";
    wait::until(PATIENCE, &what, || {
        let namespaces = cluster::node_exec(node, &["sh", "-c", list])?.lines().count();
        let on = format!("--field-selector=spec.nodeName={node},status.phase=Running");
        let pods: Value =
            serde_json::from_str(&cluster::kubectl(&["get", "pods", "-A", &on, "-o", "json"])?)?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        let with_one = pods
            .iter()
            .filter(|pod| pod["spec"]["hostNetwork"] != true)
            .count();
        ensure!(namespaces == with_one, "{namespaces} namespaces, {with_one} pods");
        Ok(true)
    })
}

#[test]
#[ignore = "needs a cluster, takes SOAK_MINUTES (30): make soak"]
fn churn_leaves_everything_as_it_was() -> Result<()> {
    let minutes = std::env::var("SOAK_MINUTES").unwrap_or_else(|_| "30".to_owned());
    let minutes: u64 = minutes.parse().context("SOAK_MINUTES is no number of minutes")?;
    installed()?;
    let client = scenario::client()?;
    // Once before the first look: what fills up once is full then.
    round(0)?;
    let rules = rules_of(&client)?;
    let before = cluster::NODES
        .map(Node::look)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;

    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    let traffic = Traffic::start(&client, vip, 50)?;
    let (began, mut rounds) = (Instant::now(), 0);
    many_pods::comes_and_goes()?;
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        rounds += 1;
        round(rounds)?;
        println!("round {rounds} after {:.0?}", began.elapsed());
    }
    let report = traffic.stop()?;
    println!("{rounds} rounds\n{report}");

    let mut wrong = Vec::new();
    if report.failed > 0 {
        wrong.push(report.to_string());
    }
    for was in &before {
        let name = &was.proxy.node;
        let is = Node::look(name)?;
        println!("{name}: {:?} before, {:?} after", was.resources, is.resources);
        if is.proxy.container != was.proxy.container {
            wrong.push(format!("{name}: the proxy is another process"));
        }
        let (was, is) = (was.resources, is.resources);
        if is.descriptors > was.descriptors + MORE_DESCRIPTORS
            || is.threads > was.threads + MORE_THREADS
            || is.memory_kib > was.memory_kib + MORE_MEMORY_KIB
        {
            wrong.push(format!("{name}: leaked: {was:?} before, {is:?} after"));
        }
    }
    let drifted = rules_of(&client)?;
    if drifted != rules {
        wrong.push(format!(
            "the rules of the client drifted:\n{rules}\n---\n{drifted}"
        ));
    }
    println!("errors, leaks and drift: {}", wrong.len());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn manifest() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/soak/churn.yaml");
    path.display().to_string()
}

fn none_left() -> Result<()> {
    wait::until(PATIENCE, "the churned pods to be gone", || {
        Ok(left()?.trim().is_empty())
    })
}

/// The churned pods that the API server still knows, one a line.
fn left() -> Result<String> {
    let namespace = ["-n", scenario::NAMESPACE];
    cluster::kubectl(&[&namespace[..], &["get", "pods", "-l", "app=churn", "-o", "name"]].concat())
}

/// Pods come, go and move; a Service comes, changes its port, loses its label, gets it back, and goes.
fn round(number: u64) -> Result<()> {
    let manifest = manifest();
    let kubectl = |args: &[&str]| cluster::kubectl(&[&["-n", scenario::NAMESPACE], args].concat());
    cluster::kubectl(&["apply", "-f", &manifest])?;
    kubectl(&["rollout", "status", "deployment/churn", "--timeout=120s"])?;
    let vip = scenario::cluster_ip("churn")?.to_string();
    let client = scenario::client()?;
    wait::until(PATIENCE, "the churned Service to be served", || {
        Ok(rules_of(&client)?.contains(&vip))
    })?;
    kubectl(&["scale", "deployment/churn", "--replicas=1"])?;
    let port = format!(
        r#"[{{"op":"replace","path":"/spec/ports/0/port","value":{}}}]"#,
        8000 + number % 1000
    );
    kubectl(&["patch", "service", "churn", "--type=json", "-p", &port])?;
    kubectl(&[
        "label",
        "service",
        "churn",
        "service.kubernetes.io/service-proxy-name-",
    ])?;
    wait::until(PATIENCE, "an unlabelled Service to be served no more", || {
        Ok(!rules_of(&client)?.contains(&vip))
    })?;
    kubectl(&[
        "label",
        "service",
        "churn",
        "service.kubernetes.io/service-proxy-name=multus-proxy",
    ])?;
    kubectl(&["scale", "deployment/churn", "--replicas=4"])?;
    kubectl(&["delete", "pods", "-l", "app=churn", "--grace-period=0", "--force"])?;
    cluster::kubectl(&["delete", "-f", &manifest, "--timeout=120s"])?;
    none_left()?;
    wait::until(PATIENCE, "the churned Service to be gone", || {
        Ok(!rules_of(&client)?.contains(&vip))
    })
}

/// Managed routes, elements and rules of a pod, sorted. The empty sets and the chains for every number
/// of endpoints that nftables has met stay, and say nothing.
fn rules_of(pod: &scenario::Attached) -> Result<String> {
    let netns = cluster::netns(&pod.node, pod.cluster_address)?;
    let list = |script: &str| {
        let netns = format!("--net={netns}");
        cluster::node_exec(&pod.node, &["nsenter", &netns, "sh", "-c", script])
    };
    let routes = list("ip route show proto 77; ip -6 route show proto 77")?;
    let legacy = list("iptables-legacy-save 2>/dev/null | grep MSP-; true")?;
    let rules = list("nft -s list ruleset")?;
    let mut decisive: Vec<_> = routes.lines().chain(legacy.lines()).map(str::to_owned).collect();
    decisive.extend(elements(&rules));
    decisive.sort_unstable();
    Ok(decisive.join("\n"))
}

/// The elements of all sets in what `nft list ruleset` prints, and rules of the nft variant of iptables.
fn elements(ruleset: &str) -> Vec<String> {
    let sets = ruleset.split("elements = {").skip(1);
    let inside = sets.filter_map(|set| set.split('}').next());
    let elements = inside.flat_map(|set| set.split(','));
    let elements = elements.map(|element| element.split_whitespace().collect::<Vec<_>>().join(" "));
    let rules = ruleset.lines().filter(|line| line.contains("MSP-"));
    elements.chain(rules.map(|rule| rule.trim().to_owned())).collect()
}
