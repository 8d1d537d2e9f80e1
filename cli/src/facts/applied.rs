//! The rules in force in the network namespace of a pod, read from the kernel by the proxy on its node.
//!
//! Reads: by `exec` in the proxy's pod, with the permissions of the user. The command there writes nothing.

use super::read::right_to;
use super::{Cluster, Read, ReadError, Reader};
use api::ObjectName;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use rules::AppliedRules;

/// Path of the proxy in its image.
const PROGRAM: &str = "/usr/bin/multus-service-proxy";

/// Rules in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Name of the proxy's pod that read them.
    pub proxy: String,
    pub rules: AppliedRules,
}

/// Result of the command `rules`.
#[derive(Clone, Debug)]
pub struct PodRules {
    /// The pod.
    pub pod: ObjectName,
    pub node: Option<String>,
    pub applied: Read<Applied>,
}

/// Reads a pod and its rules.
pub async fn pod_rules(reader: &Reader, key: &ObjectName) -> PodRules {
    let (cluster, pod) = futures::join!(
        super::cluster(reader),
        reader.get::<Pod>(&key.namespace, &key.name)
    );
    let applied = match &pod {
        Ok(pod) => applied(reader, &cluster, pod.as_ref()).await,
        Err(error) => Err(error.clone()),
    };
    let pod = pod.ok().flatten();
    PodRules {
        pod: key.clone(),
        node: pod.as_ref().and_then(node_of).map(str::to_owned),
        applied,
    }
}

/// Reads the rules of a pod; `None`: it does not exist.
pub async fn applied(reader: &Reader, cluster: &Cluster, pod: Option<&Pod>) -> Read<Applied> {
    let pod = pod.ok_or_else(|| ReadError::NotAvailable("the pod does not exist".to_owned()))?;
    let node = node_of(pod).ok_or_else(|| ReadError::NotAvailable("the pod is on no node yet".to_owned()))?;
    let proxies = cluster.proxies.as_ref().map_err(Clone::clone)?;
    let is_there = |proxy: &&Pod| node_of(proxy) == Some(node) && is_running(proxy);
    let proxy = proxies
        .iter()
        .find(is_there)
        .ok_or_else(|| ReadError::NotAvailable(format!("no proxy is running on node {node}")))?;
    let (namespace, name) = (proxy.namespace().unwrap_or_default(), proxy.name_any());
    let right = right_to("create", "pods/exec", "", Some(&namespace));
    let command = [
        PROGRAM,
        "rules",
        &format!("--pod={}", ObjectName::of(pod)),
        &format!("--uid={}", pod.uid().unwrap_or_default()),
    ];
    let text = reader.exec(&namespace, &name, right.clone(), &command).await?;
    let rules = serde_json::from_str(&text).map_err(|error| ReadError::Failed {
        right,
        message: format!("pod {namespace}/{name} printed no rules: {error}"),
    })?;
    Ok(Applied { proxy: name, rules })
}

/// Returns the node of a pod.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Returns the phase of a pod.
pub fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn is_running(pod: &Pod) -> bool {
    phase_of(pod) == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}
