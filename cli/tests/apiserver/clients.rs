//! What is wrong with the client, or on its node.

use anyhow::Result;
use cli::chain::{State, Topic};
use cli::situations::Cause;
use serde_json::{Value, json};

use crate::bed::{Scene, status};

/// A Service that works, for a client that attaches.
async fn served(prefix: &str, change: Value) -> Result<Scene> {
    let scene = Scene::new(prefix).await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.pod("web-2", &["10.1.0.3"]).await?;
    scene.service(change).await?;
    Ok(scene)
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_good_client_reaches_each_endpoint() -> Result<()> {
    let scene = served("client", json!({})).await?;
    scene.client_on("node-1", &["10.1.0.9"]).await?;
    let explanation = scene.is_well(Some(&scene.key("client"))).await?;
    let rules = explanation.chain.links.last().unwrap();
    assert_eq!(rules.topic, Topic::Rules);
    let flow = &rules.details[0];
    assert!(
        flow.ends_with(
            "by net1 from 10.1.0.9, to each of 2 with probability 1/2: 10.1.0.2:8080, 10.1.0.3:8080"
        ),
        "{flow}"
    );
    assert!(
        rules
            .says
            .contains("the applied state of the node is not available"),
        "{rules:?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_that_does_not_exist() -> Result<()> {
    served("no-client", json!({}))
        .await?
        .breaks_from_client(Cause::ClientNotFound)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_that_is_not_attached() -> Result<()> {
    let scene = served("lonely", json!({})).await?;
    scene.any_pod("client", "client", "[]", json!({}), "True").await?;
    scene.breaks_from_client(Cause::ClientNotAttached).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_on_the_host_network() -> Result<()> {
    let scene = served("on-host", json!({})).await?;
    scene
        .any_pod("client", "client", "[]", json!({"hostNetwork": true}), "True")
        .await?;
    scene.breaks_from_client(Cause::ClientOnHostNetwork).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_on_a_network_of_the_same_name() -> Result<()> {
    let scene = served("copy", json!({})).await?;
    scene
        .any_pod(
            "client",
            "client",
            &status("default/testnet1", &["10.1.0.9"]),
            json!({}),
            "True",
        )
        .await?;
    scene.breaks_from_client(Cause::ClientOnNamesake).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_whose_namespace_may_not_use_the_network() -> Result<()> {
    let scene = served("tenant", json!({})).await?;
    let other = Scene::new("intruder").await?;
    let attached = scene.attached("testnet1", &["10.1.0.9"]);
    other
        .any_pod("client", "client", &attached, json!({}), "True")
        .await?;
    let client = other.key("client");
    scene
        .says(Cause::ClientNotAllowed, State::Broken, Some(&client))
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_without_an_address() -> Result<()> {
    let scene = served("no-address", json!({})).await?;
    scene.client_on("node-1", &["fd00:1::9"]).await?;
    scene.breaks_from_client(Cause::ClientNoAddress).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_whose_network_status_cannot_be_read() -> Result<()> {
    let scene = served("unreadable", json!({})).await?;
    scene
        .any_pod("client", "client", "{{{", json!({}), "True")
        .await?;
    scene.breaks_from_client(Cause::ClientStatusUnreadable).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_client_that_is_attached_twice() -> Result<()> {
    let scene = served("two", json!({})).await?;
    let network = format!("{}/testnet1", scene.namespace);
    let interface = |name: &str, address: &str| json!({"name": network, "interface": name, "ips": [address]});
    let status = json!([interface("net1", "10.1.0.8"), interface("net2", "10.1.0.9")]).to_string();
    scene
        .any_pod("client", "client", &status, json!({}), "True")
        .await?;
    scene.warns_from_client(Cause::ClientSeveralInterfaces).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_without_a_proxy() -> Result<()> {
    let scene = served("no-proxy", json!({})).await?;
    scene.client_on("node-3", &["10.1.0.9"]).await?;
    scene.breaks_from_client(Cause::ProxyMissing).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_whose_kernel_lacks_the_backend() -> Result<()> {
    let scene = served("kernel", json!({})).await?;
    scene.client_on("node-2", &["10.1.0.9"]).await?;
    let link = scene.breaks_from_client(Cause::NodeFault).await?;
    assert!(link.says.contains("nf_tables"), "{link:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_whose_proxy_is_not_ready() -> Result<()> {
    let scene = served("unready-proxy", json!({})).await?;
    scene.client_on("node-4", &["10.1.0.9"]).await?;
    scene.warns_from_client(Cause::ProxyNotReady).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_whose_proxy_could_not_apply_everything() -> Result<()> {
    let scene = served("partly", json!({})).await?;
    scene.client_on("node-5", &["10.1.0.9"]).await?;
    let link = scene.warns_from_client(Cause::RulesNotApplied).await?;
    assert!(
        link.details
            .iter()
            .any(|line| line.contains("interface net1 is down")),
        "{link:?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_local_service_without_an_endpoint_on_the_node() -> Result<()> {
    let scene = served("local", json!({"spec": {"internalTrafficPolicy": "Local"}})).await?;
    scene.client_on("node-5", &["10.1.0.9"]).await?;
    scene.breaks_from_client(Cause::NoLocalEndpoint).await?;
    Ok(())
}
