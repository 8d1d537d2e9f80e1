//! What is wrong with the pods that should answer, or with what a Service's author wrote instead.

use anyhow::Result;
use api::names;
use cli::situations::Cause;
use serde_json::json;

use crate::bed::{Scene, status};

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_selector_that_matches_no_pod() -> Result<()> {
    let scene = Scene::new("nothing").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene
        .service(json!({"spec": {"selector": {"app": "wep"}}}))
        .await?;
    scene.breaks(Cause::SelectorMatchesNothing).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_that_are_not_attached() -> Result<()> {
    let scene = Scene::new("unattached").await?;
    scene.any_pod("web-1", "web", "[]", json!({}), "True").await?;
    scene.service(json!({})).await?;
    let link = scene.breaks(Cause::NoPodsAttached).await?;
    assert!(link.details.iter().any(|line| line.contains("web-1")), "{link:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_on_the_host_network() -> Result<()> {
    let scene = Scene::new("host").await?;
    scene
        .any_pod("web-1", "web", "[]", json!({"hostNetwork": true}), "True")
        .await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::PodOnHostNetwork).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_network_status_that_cannot_be_read() -> Result<()> {
    let scene = Scene::new("status").await?;
    scene.any_pod("web-1", "web", "{{{", json!({}), "True").await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::InvalidNetworkStatus).await?;
    scene.pod("web-2", &["10.1.0.2"]).await?;
    scene.warns(Cause::InvalidNetworkStatus).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_without_an_address() -> Result<()> {
    let scene = Scene::new("layer2").await?;
    scene.pod("web-1", &[]).await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::NoAddress).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_without_an_address_of_one_family() -> Result<()> {
    let scene = Scene::new("family").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene
        .service(json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}))
        .await?;
    let link = scene.warns(Cause::FamilyMissing).await?;
    assert!(link.says.contains("IPv6"), "{link:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_address_that_no_pod_can_have() -> Result<()> {
    let scene = Scene::new("address").await?;
    scene.pod("web-1", &["192.168.0.1"]).await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::InvalidEndpointAddress).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn two_pods_with_one_address() -> Result<()> {
    let scene = Scene::new("twice").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.pod("web-2", &["10.1.0.2"]).await?;
    scene.service(json!({})).await?;
    scene.warns(Cause::DuplicateAddress).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_that_are_not_ready() -> Result<()> {
    let scene = Scene::new("unready").await?;
    let attached = scene.attached("testnet1", &["10.1.0.2"]);
    scene
        .any_pod("web-1", "web", &attached, json!({}), "False")
        .await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::NotReady).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_named_port_that_no_pod_has() -> Result<()> {
    let scene = Scene::new("port").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    let port = |name: &str, number: u16, target: serde_json::Value| json!({"name": name, "port": number, "targetPort": target});
    scene
        .service(json!({"spec": {"ports": [port("http", 80, json!("web-ui"))]}}))
        .await?;
    scene.breaks(Cause::TargetPortNotFound).await?;
    let other = Scene::new("port-of-two").await?;
    other.pod("web-1", &["10.1.0.2"]).await?;
    let ports = json!([port("http", 80, json!("web-ui")), port("raw", 81, json!(8081))]);
    other.service(json!({"spec": {"ports": ports}})).await?;
    other.warns(Cause::TargetPortNotFound).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_service_without_selector_and_without_slices() -> Result<()> {
    let scene = Scene::new("manual").await?;
    scene.service(json!({"spec": {"selector": null}})).await?;
    scene.breaks(Cause::NoEndpointSlices).await?;
    let endpoint = json!({"addresses": ["10.1.0.7"]});
    scene.slice(json!({"endpoints": [endpoint]})).await?;
    scene.is_well(None).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_by_hand_that_are_not_taken() -> Result<()> {
    let scene = Scene::new("untaken").await?;
    scene.service(json!({"spec": {"selector": null}})).await?;
    scene
        .slice(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["example.com"]}]}))
        .await?;
    scene.breaks(Cause::EndpointsIgnored).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_that_kubernetes_left() -> Result<()> {
    let scene = Scene::new("left").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    let change = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=web"}}, "spec": {"selector": null}});
    let labels = json!({names::MANAGED_BY_LABEL: "endpointslice-controller.k8s.io"});
    scene
        .slice(json!({"metadata": {"labels": labels}, "endpoints": [{"addresses": ["10.128.0.5"]}]}))
        .await?;
    scene.service(change).await?;
    scene.warns(Cause::ConflictingEndpoints).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn topology_hints_that_cannot_be_given() -> Result<()> {
    let scene = Scene::new("hints").await?;
    scene
        .any_pod(
            "web-1",
            "web",
            &status(&format!("{}/testnet1", scene.namespace), &["10.1.0.2"]),
            json!({}),
            "True",
        )
        .await?;
    scene
        .service(json!({"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}}))
        .await?;
    scene.warns(Cause::HintsNotGiven).await?;
    Ok(())
}
