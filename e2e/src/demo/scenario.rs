//! Objects of the demo: a network, two web servers on two nodes, a client, the Service and an ordinary one beside it.

use super::Narrator;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use testbed::cluster;

/// Namespace of the scenario.
pub const NAMESPACE: &str = "demo";

/// Selects the web servers: the pods of the Deployment. Tests put other pods that the Service selects beside them.
pub const SERVERS: &str = "app=web,pod-template-hash";

/// A file of the scenario.
pub fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/demo")
        .join(name)
}

/// Manifests in the order of application, each with a description.
const FILES: [(&str, &str); 6] = [
    ("namespace.yaml", ""),
    (
        "network.yaml",
        "A network-attachment-definition describes the second network to Multus: macvlan on each node's\n\
         data interface, with addresses from one range for both nodes.",
    ),
    (
        "web.yaml",
        "Two nginx pods. An annotation attaches them to that network; a spread constraint puts them on different nodes.",
    ),
    ("client.yaml", "A client pod on the same network."),
    (
        "service.yaml",
        "The Service. One label takes it from kube-proxy, one annotation binds it to macvlan1:",
    ),
    (
        "ordinary-service.yaml",
        "For comparison, an ordinary Service for the same pods, without label and annotation.",
    ),
];

/// Applies everything and waits until all pods are ready.
pub fn apply(narrator: &Narrator) -> Result<()> {
    for (file, words) in FILES {
        narrator.say(&format!("\n{words}"));
        if file == "service.yaml" {
            let text = std::fs::read_to_string(manifest(file))?;
            narrator.say(
                &text
                    .lines()
                    .filter(|line| !line.starts_with('#'))
                    .fold("\n".to_owned(), |all, line| format!("{all}    {line}\n")),
            );
        }
        narrator.kubectl(&["apply", "-f", &manifest(file).display().to_string()])?;
    }
    make_ready()?;
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        "deployment/web",
        "--timeout=180s",
    ])?;
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "pod/client",
        "--timeout=180s",
    ])?;
    narrator.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?;
    Ok(())
}

/// A run that was broken off may have left a server unready.
fn make_ready() -> Result<()> {
    let names = cluster::kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "app=web", "-o", "name"])?;
    for pod in names.split_whitespace() {
        // It may not run yet, and then it is about to become ready by itself.
        let _ = cluster::kubectl(&["-n", NAMESPACE, "exec", pod, "--", "touch", "/ready"]);
    }
    Ok(())
}

/// Lists routes and rules, the product's and others', in a shell. All of the routes: a list of one protocol leaves out the very words
/// by which they are known.
pub const LIST_RULES: &str =
    "ip route show table all; nft list ruleset; iptables-legacy-save 2>/dev/null; true";

/// True for a line of that list about a route or a rule of the product.
pub fn is_ours(line: &str) -> bool {
    ["proto 77", "MSP-", "multus-proxy"]
        .iter()
        .any(|mark| line.contains(mark))
}

/// A pod of the scenario with its address on the second network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Pod name.
    pub pod: String,
    /// Node name.
    pub node: String,
    /// Address on eth0.
    pub cluster_address: IpAddr,
    /// First address on macvlan1.
    pub address: IpAddr,
}

impl Attached {
    /// The lines of the product's routes and rules in the pod's network namespace.
    pub fn rules(&self) -> Result<Vec<String>> {
        let netns = format!("--net={}", cluster::netns(&self.node, self.cluster_address)?);
        let state = cluster::node_exec(&self.node, &["nsenter", &netns, "sh", "-c", LIST_RULES])?;
        Ok(state
            .lines()
            .filter(|line| is_ours(line))
            .map(str::to_owned)
            .collect())
    }
}

/// The running pods with this label, and their addresses as the API server knows them.
pub fn attached(selector: &str) -> Result<Vec<Attached>> {
    let listed = cluster::kubectl(&["-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let pods = listed["items"].as_array().context("kubectl printed no list")?;
    let mut found = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            attachment(pod).with_context(|| format!("pod {} is not attached", pod["metadata"]["name"]))
        })
        .collect::<Result<Vec<_>>>()?;
    found.sort_by(|a, b| a.pod.cmp(&b.pod));
    Ok(found)
}

/// The web servers.
pub fn servers() -> Result<Vec<Attached>> {
    attached(SERVERS)
}

/// Resolves a name inside a pod, by the cluster's DNS: addresses of one family, or none. `name` is completed as the
/// pod's `resolv.conf` says (`web`, `web.demo`); end it with a dot to forbid that.
pub fn resolve(pod: &str, name: &str, record: Record) -> Result<BTreeSet<IpAddr>> {
    let record = record.to_string();
    let dig = [
        "-n", NAMESPACE, "exec", pod, "--", "dig", "+search", "+short", "+tries=2", "+time=2", "-t", &record,
        name,
    ];
    let answer = cluster::kubectl(&dig)?;
    // An alias is listed by its name before the addresses.
    Ok(answer
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect())
}

/// Type of a DNS query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
        })
    }
}

/// The client pod.
pub fn client() -> Result<Attached> {
    let pod = cluster::kubectl(&["-n", NAMESPACE, "get", "pod", "client", "-o", "json"])?;
    attachment(&serde_json::from_str(&pod)?)
}

fn attachment(pod: &Value) -> Result<Attached> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a field is missing");
    let annotations = &pod["metadata"]["annotations"];
    let status = text(&annotations[api::names::NETWORK_STATUS_ANNOTATION])?;
    let network = api::NetworkRef::parse("macvlan1", NAMESPACE)?;
    let statuses = api::network_status::parse(&status)?.statuses;
    let interface = api::network_status::on(&statuses, &network)
        .next()
        .context("no interface on macvlan1")?;
    Ok(Attached {
        pod: text(&pod["metadata"]["name"])?,
        node: text(&pod["spec"]["nodeName"])?,
        cluster_address: text(&pod["status"]["podIP"])?.parse()?,
        address: *interface.addresses.first().context("no address on macvlan1")?,
    })
}

/// ClusterIP of a Service of the scenario.
pub fn cluster_ip(service: &str) -> Result<IpAddr> {
    let ip = cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "service",
        service,
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    ip.trim()
        .parse()
        .with_context(|| format!("service {service} has no ClusterIP but {ip:?}"))
}
