//! Stands in for scheduler and kubelet of the test's nodes: no container runs.

use super::NAMESPACE;
use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the nodes do with pods.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    stuck: Mutex<BTreeSet<String>>,
    holding: AtomicBool,
    statuses: Mutex<BTreeMap<String, Value>>,
}

impl Nodes {
    /// From now on no clean-up on this node becomes Ready; or again it does.
    pub(crate) fn set_stuck(&self, node: &str, stuck: bool) {
        let mut nodes = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if stuck {
            nodes.insert(node.to_owned())
        } else {
            nodes.remove(node)
        };
    }

    /// From now on no pod that is not Ready yet becomes Ready; or again they do.
    pub(crate) fn set_holding(&self, holding: bool) {
        self.holding.store(holding, Ordering::Relaxed);
    }

    /// What pods of this node say of themselves, in place of being well.
    pub(crate) fn set_status(&self, node: &str, status: Option<Value>) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => statuses.insert(node.to_owned(), status),
            None => statuses.remove(node),
        };
    }

    fn status(&self, node: &str) -> Option<Value> {
        self.statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .cloned()
    }

    fn is_stuck(&self, node: &str) -> bool {
        self.stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(node)
    }
}

/// Turns pods into running ones until the test ends.
pub(crate) async fn play(client: Client, nodes: std::sync::Arc<Nodes>) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    loop {
        for pod in pods
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default()
        {
            // A pod that changed meanwhile is met again in the next round.
            let _ = advance(&client, &pods, &pod, &nodes).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn advance(client: &Client, pods: &Api<Pod>, pod: &Pod, nodes: &Nodes) -> Result<()> {
    let name = pod.name_any();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    if pod.metadata.deletion_timestamp.is_some() {
        pods.delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
    } else if let Some(node) = node {
        let stuck = is_cleanup(pod) && nodes.is_stuck(&node) || nodes.holding.load(Ordering::Relaxed);
        if let Some(status) = nodes.status(&node) {
            if !says(pod, &status) {
                let patch = Patch::Merge(json!({ "status": status }));
                pods.patch_status(&name, &PatchParams::default(), &patch).await?;
            }
        } else if !stuck && !is_ready(pod) {
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running()))
                .await?;
        }
    } else {
        bind(client, &name, &wanted_node(pod)).await?;
    }
    Ok(())
}

/// Whether the kubelet's part of it is there already.
fn says(pod: &Pod, status: &Value) -> bool {
    let restarts = |status: &Value| status.pointer("/containerStatuses/0/restartCount").cloned();
    let wanted = serde_json::from_value(json!({ "metadata": {}, "status": status }));
    let now = serde_json::to_value(&pod.status).unwrap_or_default();
    restarts(&now) == restarts(status) && wanted.is_ok_and(|wanted| is_ready(pod) == is_ready(&wanted))
}

fn is_cleanup(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.containers[0]
            .args
            .iter()
            .flatten()
            .any(|arg| arg == "cleanup")
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The DaemonSet controller asks for a node by a field selector in the affinity.
fn wanted_node(pod: &Pod) -> String {
    let affinity = serde_json::to_value(&pod.spec).unwrap_or_default();
    let path = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    affinity
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or(super::NODES[0])
        .to_owned()
}

async fn bind(client: &Client, pod: &str, node: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": pod },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let _: Value = pods
        .create_subresource("binding", pod, &PostParams::default(), &binding)
        .await?;
    Ok(())
}

fn running() -> Value {
    json!({ "status": {
        "phase": "Running",
        "containerStatuses": null,
        "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "ContainersReady", "status": "True" },
        ],
    }})
}
