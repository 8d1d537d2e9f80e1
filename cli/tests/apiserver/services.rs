//! What is wrong with the Service itself.

use anyhow::Result;
use api::names;
use cli::situations::Cause;
use serde_json::{Value, json};

use crate::bed::Scene;

/// A Service that would be served but for `change`.
async fn changed(prefix: &str, change: Value) -> Result<Scene> {
    let scene = Scene::new(prefix).await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.service(change).await?;
    Ok(scene)
}

fn annotated(network: &Value) -> Value {
    json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: network}}})
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_good_service_is_well() -> Result<()> {
    let scene = changed("well", json!({})).await?;
    scene.is_well(None).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn no_service() -> Result<()> {
    Scene::new("absent").await?.breaks(Cause::ServiceNotFound).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn no_label() -> Result<()> {
    let change = json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: null}}});
    changed("label", change)
        .await?
        .breaks(Cause::LabelMissing)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_wrong_value_of_the_label() -> Result<()> {
    let change = json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: "multus"}}});
    let link = changed("value", change).await?.breaks(Cause::LabelValue).await?;
    assert!(link.says.contains("\"multus\""), "{link:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_headless_label_on_a_cluster_ip() -> Result<()> {
    let change = json!({"metadata": {"labels": {names::HEADLESS_LABEL: ""}}});
    changed("headless-label", change)
        .await?
        .breaks(Cause::HeadlessLabel)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_external_name() -> Result<()> {
    let change = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    changed("external", change)
        .await?
        .breaks(Cause::ExternalName)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn no_annotation() -> Result<()> {
    changed("annotation", annotated(&Value::Null))
        .await?
        .breaks(Cause::AnnotationMissing)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_malformed_annotation() -> Result<()> {
    changed("malformed", annotated(&json!("a/b/c")))
        .await?
        .breaks(Cause::AnnotationMalformed)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_network_of_another_namespace() -> Result<()> {
    let other = Scene::new("owner").await?;
    let change = annotated(&json!(format!("{}/testnet1", other.namespace)));
    changed("foreign", change)
        .await?
        .breaks(Cause::NetworkNotAllowed)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_network_that_does_not_exist() -> Result<()> {
    changed("missing", annotated(&json!("nowhere")))
        .await?
        .breaks(Cause::NetworkNotFound)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_network_of_the_same_name_elsewhere() -> Result<()> {
    let other = Scene::new("elsewhere").await?;
    other.network("macvlan9").await?;
    let scene = changed("namesake", annotated(&json!("macvlan9"))).await?;
    let link = scene.breaks(Cause::NetworkElsewhere).await?;
    assert!(
        link.says.contains(&format!("{}/macvlan9 does", other.namespace)),
        "{link:?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_selector_annotation_that_cannot_be_read() -> Result<()> {
    let change = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app in (web"}}, "spec": {"selector": null}});
    changed("selector", change)
        .await?
        .breaks(Cause::InvalidSelector)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn two_selectors() -> Result<()> {
    let change = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=other"}}});
    changed("selectors", change)
        .await?
        .warns(Cause::SelectorIgnored)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn headless_with_a_selector() -> Result<()> {
    changed("headless", json!({"spec": {"clusterIP": "None"}}))
        .await?
        .warns(Cause::HeadlessWithSelector)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_label_on_a_node_port() -> Result<()> {
    changed("nodeport", json!({"spec": {"type": "NodePort"}}))
        .await?
        .warns(Cause::NodePort)
        .await?;
    Ok(())
}
