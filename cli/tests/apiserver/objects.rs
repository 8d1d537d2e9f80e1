//! What an administrator, kubelets and the operator write.

use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Defines the kind that Multus brings, and our own.
pub(crate) async fn define_networks(client: &Client) -> Result<()> {
    let text = include_str!("../../../controller/tests/apiserver/network-attachment-definition-crd.yaml");
    define(client, serde_saphyr::from_str(text)?).await
}

async fn define(client: &Client, definition: DynamicObject) -> Result<()> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&kind))
        .create(&PostParams::default(), &definition)
        .await?;
    Ok(())
}

/// The namespace of the operands, and the kind of their configuration.
pub(crate) async fn operands(client: &Client) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": names::NAMESPACE}}))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    Api::namespaced(client.clone(), names::NAMESPACE)
        .create(&PostParams::default(), &account)
        .await?;
    define(client, serde_json::from_value(api::config::crd_document()?)?).await
}

/// Writes the configuration as the operator reports a working installation; `spec` is merged over it.
pub(crate) async fn config(client: &Client, spec: Value) -> Result<()> {
    let configs: Api<api::MultusServiceConfig> = Api::all(client.clone());
    let force = PatchParams::apply("test").force();
    let object = json!({"apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig",
        "metadata": {"name": names::CONFIG_NAME}, "spec": spec});
    testbed::wait::eventually(super::SOON, "the kind to be served", async || {
        Ok(Some(
            configs
                .patch(names::CONFIG_NAME, &force, &Patch::Apply(&object))
                .await?,
        ))
    })
    .await?;
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "AsExpected", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let version = env!("CARGO_PKG_VERSION");
    let status = json!({"status": {"observedVersion": version, "operatorVersion": version,
        "conditions": [condition("Available", "True"), condition("Degraded", "False")]}});
    configs
        .patch_status(
            names::CONFIG_NAME,
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await?;
    Ok(())
}

/// A ready node with an address of its own.
pub(crate) async fn node(client: &Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let last = name.trim_start_matches("node-");
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{last}")}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.1.0", "operatingSystem": "linux", "architecture": "amd64",
            "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "v1.33.0", "machineID": "", "osImage": "", "systemUUID": ""}}});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// A proxy's Pod as kubelet and proxy report it.
pub(crate) async fn proxy(
    client: &Client,
    node: &str,
    ready: &str,
    applied: (&str, &str, &str),
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), names::NAMESPACE);
    let name = format!("proxy-{node}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": names::PROXY, "app.kubernetes.io/part-of": names::PART_OF}},
        "spec": {"nodeName": node, "containers": [{"name": "proxy", "image": "localhost/none"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let (status, reason, message) = applied;
    let status = json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": ready},
        {"type": names::RULES_APPLIED_CONDITION, "status": status, "reason": reason, "message": message}]}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Merges `change` over `object` as RFC 7386 does: null removes.
pub(crate) fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    object.remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (object, change) => *object = change,
    }
}
