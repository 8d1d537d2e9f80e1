//! DNS answers: the real CoreDNS, kube-controller-manager and a StatefulSet that it runs.
//!
//! The fake is the kubelet: the test gives pods their addresses and their readiness. Nothing of DNS depends on a running container.

use crate::bed::{Controller, Fixture};
use crate::coredns::CoreDns;
use crate::kube_controller_manager::server_with_twin;
use anyhow::Result;
use api::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use serde_json::json;
use std::time::Duration;
use testbed::wait;

/// Status that a node would report of pod `db-n`: `10.128.0.1n` on the cluster network, `10.1.0.1n` and `fd00:1::1n` on the secondary one.
async fn play_kubelet(fixture: &Fixture, n: usize, ready: &str) -> Result<()> {
    let pod = format!("db-{n}");
    wait::eventually(Duration::from_secs(30), &format!("pod {pod}"), async || {
        Ok(fixture.api::<Pod>().get_opt(&pod).await?)
    })
    .await?;
    let addresses = [format!("10.1.0.1{n}"), format!("fd00:1::1{n}")];
    let status = fixture.status(&[&addresses[0], &addresses[1]]);
    fixture
        .patch::<Pod>(
            &pod,
            json!({"metadata": {"annotations": {names::NETWORK_STATUS_ANNOTATION: status}}}),
        )
        .await?;
    fixture
        .pod_status_at(&pod, ready, "2026-01-01T00:00:00Z", &format!("10.128.0.1{n}"))
        .await
}

/// Two pods `db-0`, `db-1` of a StatefulSet whose governing Service `db` is an ordinary one.
async fn stateful_set(fixture: &Fixture) -> Result<()> {
    let plain = json!({"metadata": {"labels": {names::PROXY_NAME_LABEL: null}, "annotations": {names::SERVICE_NETWORK_ANNOTATION: null}},
        "spec": {"clusterIP": "None"}});
    fixture.service("db", plain).await?;
    let set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db", "replicas": 2, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "localhost/none"}]}},
        },
    });
    fixture
        .api::<StatefulSet>()
        .create(&PostParams::default(), &serde_json::from_value(set)?)
        .await?;
    for n in 0..2 {
        play_kubelet(fixture, n, "True").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd, kube-apiserver and CoreDNS: make test-apiserver"]
async fn dns_of_a_headless_service_answers_the_secondary_network_alone() -> Result<()> {
    let (server, kubeconfig) = server_with_twin().await?;
    let controller = Controller::start(&kubeconfig, server.folder(), "dns", &[])?;
    controller.wait_ready().await?;
    let fixture = Fixture::new(&server, "dns").await?;
    fixture.default_account().await?;
    stateful_set(&fixture).await?;
    let annotated = json!({"metadata": {"annotations": {names::SELECTOR_ANNOTATION: "app=db"}},
        "spec": {"clusterIP": "None", "selector": null, "ipFamilyPolicy": "RequireDualStack"}});
    fixture.service("db-fast", annotated).await?;
    let dns = CoreDns::start(&server).await?;
    let name = |first: &str| format!("{first}.{}.svc.cluster.local.", fixture.namespace);

    let both = ["10.1.0.10", "10.1.0.11", "fd00:1::10", "fd00:1::11"];
    dns.answers_until(&name("db-fast"), &both).await?;
    dns.answers_until(&name("db-0.db-fast"), &["10.1.0.10", "fd00:1::10"])
        .await?;
    dns.answers_until(&name("db-1.db-fast"), &["10.1.0.11", "fd00:1::11"])
        .await?;
    // Proves that kube-controller-manager runs, and that it ignores the managed Service.
    dns.answers_until(&name("db"), &["10.128.0.10", "10.128.0.11"])
        .await?;

    play_kubelet(&fixture, 1, "False").await?;
    dns.answers_until(&name("db-fast"), &["10.1.0.10", "fd00:1::10"])
        .await?;
    dns.answers_until(&name("db-1.db-fast"), &[]).await?;
    fixture
        .patch::<Service>("db-fast", json!({"spec": {"publishNotReadyAddresses": true}}))
        .await?;
    dns.answers_until(&name("db-fast"), &both).await?;
    fixture
        .patch::<Service>("db-fast", json!({"spec": {"publishNotReadyAddresses": false}}))
        .await?;
    dns.answers_until(&name("db-1.db-fast"), &[]).await?;
    play_kubelet(&fixture, 1, "True").await?;
    dns.answers_until(&name("db-fast"), &both).await?;

    // With spec.selector, Kubernetes publishes cluster-network addresses too: the warning is correct, and so is its remedy.
    let selecting = json!({"spec": {"clusterIP": "None", "selector": {"app": "db"}}});
    fixture.service("db-both", selecting).await?;
    dns.answers_until(
        &name("db-both"),
        &["10.1.0.10", "10.1.0.11", "10.128.0.10", "10.128.0.11"],
    )
    .await?;
    let event = fixture.event_until("db-both", "HeadlessWithSelector").await?;
    let note = event.note.unwrap_or_default();
    assert!(
        note.contains("cluster-network addresses") && note.contains(names::SELECTOR_ANNOTATION),
        "{note}"
    );
    Ok(())
}
