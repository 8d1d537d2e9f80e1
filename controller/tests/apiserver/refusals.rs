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

/// One bad Service among a hundred, bad pods and a huge annotation: the good ones are as fast and as right as without them.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn one_bad_object_never_delays_another() -> Result<()> {
    let scene = Bed::shared().await?.scene("crowd").await?;
    // All annotations of an object together may have 256 KiB; a longer text than the API server takes is tried on pure code
    // (`of_a_huge_text_little_is_kept`, `a_long_value_is_cut_in_the_message`).
    let huge = "x".repeat(200 << 10);
    scene
        .bare_pod("huge", "shared", json!({names::NETWORK_STATUS_ANNOTATION: huge}))
        .await?;
    scene
        .bare_pod(
            "broken",
            "shared",
            json!({names::NETWORK_STATUS_ANNOTATION: "{{{"}),
        )
        .await?;
    scene
        .bare_pod(
            "odd",
            "shared",
            json!({names::NETWORK_STATUS_ANNOTATION: scene.status(&["10.1.0.300"])}),
        )
        .await?;
    scene.pod("good", "shared", &["10.1.0.2"]).await?;
    let bad = [
        (
            "bad-network",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "/"}}}),
        ),
        (
            "bad-selector",
            json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "((("}}, "spec": {"selector": null}}),
        ),
        (
            "bad-namespace",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: "kube-system/secret"}}}),
        ),
        (
            "bad-huge",
            json!({"metadata": {"annotations": {names::SERVICE_NETWORK_ANNOTATION: huge}}}),
        ),
    ];
    for (name, change) in bad {
        scene.service(name, change).await?;
    }
    for n in 0..96 {
        scene
            .service(
                &format!("good-{n}"),
                json!({"spec": {"selector": {"app": "shared"}}}),
            )
            .await?;
    }
    for n in 0..96 {
        scene
            .endpoints_until(&format!("good-{n}"), &[("10.1.0.2", true)])
            .await?;
    }
    for (name, reason) in [
        ("bad-network", "InvalidNetwork"),
        ("bad-selector", "InvalidSelector"),
        ("bad-namespace", "NetworkNotAllowed"),
        ("bad-huge", "InvalidNetwork"),
        ("good-7", "InvalidNetworkStatus"),
    ] {
        let event = scene.event_until(name, reason).await?;
        assert!(event.note.is_some_and(|note| note.len() <= 1024));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn pods_that_are_not_attached_are_named() -> Result<()> {
    let scene = Bed::shared().await?.scene("attached").await?;
    scene.bare_pod("lonely", "web", json!({})).await?;
    scene.service("web", json!({})).await?;
    let note = scene
        .event_until("web", "PodNotAttached")
        .await?
        .note
        .unwrap_or_default();
    assert!(
        note.contains("lonely") && note.contains("k8s.v1.cni.cncf.io/networks"),
        "{note}"
    );
    scene
        .service(
            "ports",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"}}}),
        )
        .await?;
    scene.event_until("ports", "NotServedOnThisNetwork").await?;
    let balanced = json!({"spec": {"type": "LoadBalancer", "selector": {"app": "web"}}});
    scene.service("balanced", balanced).await?;
    let outside = json!({"spec": {"externalIPs": ["203.0.113.9"], "selector": {"app": "web"}}});
    scene.service("outside", outside).await?;
    let labelled =
        json!({"metadata": {"labels": {names::HEADLESS_LABEL: ""}}, "spec": {"selector": {"app": "web"}}});
    scene.service("labelled", labelled).await?;
    for (service, part) in [
        ("balanced", "LoadBalancer"),
        ("outside", "externalIPs"),
        ("labelled", names::HEADLESS_LABEL),
    ] {
        let event = scene.event_until(service, "NotServedOnThisNetwork").await?;
        assert!(event.note.is_some_and(|note| note.contains(part)), "{service}");
    }
    scene
        .service("six", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}))
        .await?;
    scene.pod("six-1", "six", &["10.1.0.2"]).await?;
    scene.event_until("six", "AddressFamilyMissing").await?;
    Ok(())
}
