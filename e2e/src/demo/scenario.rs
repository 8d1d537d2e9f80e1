//! What the demo runs on the cluster: a network, two web servers on two nodes, a client, the Service and an ordinary one beside it.

use super::Narrator;
use crate::cluster;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Namespace of the scenario.
pub const NAMESPACE: &str = "demo";

/// A file of the scenario.
pub fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/demo").join(name)
}

/// Applies everything and waits until all pods are ready.
pub fn apply(narrator: &Narrator) -> Result<()> {
    for (file, words) in [
        ("namespace.yaml", ""),
        ("network.yaml", "A network-attachment-definition describes the second network. Multus reads it."),
        ("web.yaml", "Two nginx pods. The annotation attaches them to macvlan1; the anti-affinity puts them on different nodes."),
        ("client.yaml", "A client pod on the same network."),
        ("service.yaml", "The Service. One label takes it from kube-proxy, one annotation binds it to macvlan1."),
        ("ordinary-service.yaml", "For comparison, an ordinary Service for the same pods, without label and annotation."),
    ] {
        narrator.say(words);
        narrator.kubectl(&["apply", "-f", &manifest(file).display().to_string()])?;
    }
    for (kind, condition) in [("deployment/web", "condition=Available"), ("pod/client", "condition=Ready")] {
        cluster::kubectl(&["-n", NAMESPACE, "wait", "--for", condition, kind, "--timeout=90s"])?;
    }
    narrator.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?;
    Ok(())
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

/// The running pods with this label, and their addresses as the API server knows them.
pub fn attached(selector: &str) -> Result<Vec<Attached>> {
    let listed = cluster::kubectl(&["-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let pods = listed["items"].as_array().context("kubectl printed no list")?;
    let mut found = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| attachment(pod).with_context(|| format!("pod {} is not attached", pod["metadata"]["name"])))
        .collect::<Result<Vec<_>>>()?;
    found.sort_by(|a, b| a.pod.cmp(&b.pod));
    Ok(found)
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
    let statuses = api::network_status::parse(&status)?;
    let interface = api::network_status::on(&statuses, &network).next().context("no interface on macvlan1")?;
    Ok(Attached {
        pod: text(&pod["metadata"]["name"])?,
        node: text(&pod["spec"]["nodeName"])?,
        cluster_address: text(&pod["status"]["podIP"])?.parse()?,
        address: *interface.addresses.first().context("no address on macvlan1")?,
    })
}

/// ClusterIP of a Service of the scenario.
pub fn cluster_ip(service: &str) -> Result<IpAddr> {
    let ip = cluster::kubectl(&["-n", NAMESPACE, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
    ip.trim().parse().with_context(|| format!("service {service} has no ClusterIP but {ip:?}"))
}
