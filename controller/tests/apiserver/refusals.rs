//! What is refused is told on the Service, once, with a remedy, and harms nobody else.

use crate::bed::Bed;
use anyhow::Result;
use api::names;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_refusal_is_an_event_and_a_condition_and_both_are_mended() -> Result<()> {
    let scene = Bed::shared().await?.scene("refused").await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene
        .service(
            "web",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "a,b"}}}),
        )
        .await?;
    let event = scene.event_until("web", "InvalidNetwork").await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let note = event.note.unwrap();
    assert!(
        note.contains("k8s.v1.cni.cncf.io/service-network")
            && note.contains("a,b")
            && note.contains("one Service per network"),
        "{note}"
    );
    scene.accepted_until("web", "False", "InvalidNetwork").await?;
    assert!(scene.slices("web").await?.is_empty());
    scene
        .patch::<Service>(
            "web",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "testnet1"}}}),
        )
        .await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    scene.accepted_until("web", "True", "Served").await?;
    assert_eq!(scene.events("web").await?.len(), 1, "told once");
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_unknown_network_is_warned_about_and_endpoints_stay() -> Result<()> {
    let scene = Bed::shared().await?.scene("unknown").await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.service("web", json!({})).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    scene.accepted_until("web", "True", "Served").await?;
    scene.delete_network("testnet1").await?;
    scene.event_until("web", "NetworkNotFound").await?;
    scene.accepted_until("web", "True", "ServedWithWarnings").await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    scene.network("testnet1").await?;
    scene.accepted_until("web", "True", "Served").await?;
    Ok(())
}
