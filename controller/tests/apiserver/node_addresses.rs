//! No endpoint is a node's address. Proxies do not watch Nodes, so the controller is responsible.

use crate::bed::Bed;
use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_address_is_an_endpoint_only_while_no_node_has_it() -> Result<()> {
    let fixture = Bed::shared().await?.fixture("node-address").await?;
    fixture.pod("web-1", "web", &["10.9.0.2"]).await?;
    fixture.pod("web-2", "web", &["10.9.0.3"]).await?;
    fixture.service("web", json!({})).await?;
    let both = [("10.9.0.2", true), ("10.9.0.3", true)];
    fixture.endpoints_until("web", &both).await?;

    let nodes: Api<Node> = Api::all(fixture.client.clone());
    let name = format!("late-{}", fixture.namespace);
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.9.0.3"}]}});
    nodes
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&address))
        .await?;
    fixture.endpoints_until("web", &both[..1]).await?;
    fixture.event_until("web", "InvalidEndpointAddress").await?;

    nodes.delete(&name, &DeleteParams::default()).await?;
    fixture.endpoints_until("web", &both).await?;
    Ok(())
}
