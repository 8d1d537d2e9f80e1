//! With the real kube-controller-manager: Endpoints that it mirrors into slices, and slices that it leaves behind.

use crate::bed::{Controller, Scene};
use crate::kube_controller_manager::server_with_twin;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

#[tokio::test]
#[ignore = "needs etcd, kube-apiserver and kube-controller-manager: make test-apiserver"]
async fn mirrored_endpoints_are_served_and_orphaned_slices_are_ignored() -> Result<()> {
    let (server, kubeconfig) = server_with_twin().await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "mirrored", &[])?;
    controller.wait_ready().await?;
    let scene = Scene::new(&server, "mirrored").await?;
    scene.default_account().await?;
    scene.service("db", json!({"spec": {"selector": null}})).await?;
    let manual = json!({"metadata": {"name": "db"}, "subsets": [{
        "addresses": [{"ip": "10.1.0.2"}, {"ip": "10.1.0.3"}], "notReadyAddresses": [{"ip": "10.1.0.4"}],
        "ports": [{"name": "http", "port": 8080}]}]});
    let all = scene.api::<Endpoints>();
    all.create(&PostParams::default(), &serde_json::from_value(manual)?)
        .await?;
    scene
        .endpoints_until(
            "db",
            &[("10.1.0.2", true), ("10.1.0.3", true), ("10.1.0.4", false)],
        )
        .await?;
    scene.accepted_until("db", "True", "Accepted").await?;
    let fewer =
        json!({"subsets": [{"addresses": [{"ip": "10.1.0.3"}], "ports": [{"name": "http", "port": 8080}]}]});
    scene.patch::<Endpoints>("db", fewer).await?;
    scene.endpoints_until("db", &[("10.1.0.3", true)]).await?;
    all.delete("db", &DeleteParams::default()).await?;
    scene.slices_until("db", "no copies", <[_]>::is_empty).await?;

    // What Kubernetes wrote for a selector names addresses of the cluster network.
    scene.pod("web-1", "web", &["10.1.0.9"]).await?;
    scene.service("web", json!({})).await?;
    scene.endpoints_until("web", &[("10.1.0.9", true)]).await?;
    let until_written = async || {
        Ok(all
            .get_opt("web")
            .await?
            .filter(|e| e.subsets.is_some())
            .map(drop))
    };
    e2e::wait::eventually(
        std::time::Duration::from_mins(1),
        "Kubernetes' Endpoints",
        until_written,
    )
    .await?;
    scene
        .patch::<Service>("web", json!({"spec": {"selector": null}}))
        .await?;
    let note = scene
        .event_until("web", "ConflictingEndpoints")
        .await?
        .note
        .unwrap_or_default();
    assert!(note.contains("delete endpoints web"), "{note}");
    scene.slices_until("web", "no copies", <[_]>::is_empty).await?;
    Ok(())
}
