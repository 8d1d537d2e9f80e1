//! With the real kube-controller-manager: Endpoints that it mirrors into slices, and slices that it leaves behind.

use crate::bed::{Controller, Fixture};
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
    let fixture = Fixture::new(&server, "mirrored").await?;
    fixture.default_account().await?;
    fixture.service("db", json!({"spec": {"selector": null}})).await?;
    let manual = json!({"metadata": {"name": "db"}, "subsets": [{
        "addresses": [{"ip": "10.1.0.2"}, {"ip": "10.1.0.3"}], "notReadyAddresses": [{"ip": "10.1.0.4"}],
        "ports": [{"name": "http", "port": 8080}]}]});
    let all = fixture.api::<Endpoints>();
    all.create(&PostParams::default(), &serde_json::from_value(manual)?)
        .await?;
    fixture
        .endpoints_until(
            "db",
            &[("10.1.0.2", true), ("10.1.0.3", true), ("10.1.0.4", false)],
        )
        .await?;
    fixture.accepted_until("db", "True", "Accepted").await?;
    let fewer =
        json!({"subsets": [{"addresses": [{"ip": "10.1.0.3"}], "ports": [{"name": "http", "port": 8080}]}]});
    fixture.patch::<Endpoints>("db", fewer).await?;
    fixture.endpoints_until("db", &[("10.1.0.3", true)]).await?;
    all.delete("db", &DeleteParams::default()).await?;
    fixture.slices_until("db", "no copies", <[_]>::is_empty).await?;

    // Slices that Kubernetes wrote for a selector contain addresses of the cluster network.
    fixture.pod("web-1", "web", &["10.1.0.9"]).await?;
    fixture.service("web", json!({})).await?;
    fixture.endpoints_until("web", &[("10.1.0.9", true)]).await?;
    let until_written = async || {
        Ok(all
            .get_opt("web")
            .await?
            .filter(|e| e.subsets.is_some())
            .map(drop))
    };
    testbed::wait::eventually(
        std::time::Duration::from_mins(1),
        "Kubernetes' Endpoints",
        until_written,
    )
    .await?;
    fixture
        .patch::<Service>("web", json!({"spec": {"selector": null}}))
        .await?;
    let note = fixture
        .event_until("web", "ConflictingEndpoints")
        .await?
        .note
        .unwrap_or_default();
    assert!(note.contains("delete endpoints web"), "{note}");
    fixture.slices_until("web", "no copies", <[_]>::is_empty).await?;
    Ok(())
}
