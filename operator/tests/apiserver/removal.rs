//! Deletion and `managementState: Removed`: first nodes, then operands, and within a time limit.

use crate::fixture::{Fixture, NAMESPACE, NODES, message};
use anyhow::{Context as _, Result, ensure};
use api::names::CONFIG_NAME;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::ResourceExt;
use kube::api::Api;
use operator::apply::FINALIZER;
use operator::cleanup::CLEANUP_ANNOTATION;
use operator::operands::SELECTOR;
use serde_json::json;
use std::time::Duration;

/// Objects with our labels that are left, in the namespace or in the cluster.
fn leftovers(fixture: &Fixture) -> Result<String> {
    let kinds = "serviceaccounts,rolebindings,networkpolicies,poddisruptionbudgets,deployments,daemonsets,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    fixture.kubectl(&["-n", NAMESPACE, "get", kinds, "-l", SELECTOR, "-o", "name"])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn deletion_cleans_up_nodes_before_operands_are_deleted() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.nodes.set_stuck("node-b", true);
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture
        .eventually("node-b alone to be waited for", async || {
            let text = message(&fixture.config().await?, "Progressing");
            ensure!(
                text == "Waiting for rule cleanup on nodes: node-b",
                "message: {text}"
            );
            Ok(Some(()))
        })
        .await?;
    let proxy = fixture.proxy().await?.context("no DaemonSet")?;
    let template = serde_json::to_value(&proxy.spec.context("no spec")?.template)?;
    assert_eq!(
        template.pointer("/spec/containers/0/args"),
        Some(&json!(["cleanup", "--wait"]))
    );

    // A restarted operator resumes, and the cleanup does not start again.
    let since = proxy.metadata.annotations.context("no annotations")?[CLEANUP_ANNOTATION].clone();
    fixture.stop_operator().await?;
    fixture.start_operator(true).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let proxy = fixture
        .proxy()
        .await?
        .context("the DaemonSet went before node-b was clean")?;
    assert_eq!(proxy.annotations()[CLEANUP_ANNOTATION], since);
    assert!(fixture.controller().await?.is_some());
    assert!(
        fixture
            .config()
            .await?
            .finalizers()
            .iter()
            .any(|name| name == FINALIZER)
    );

    fixture.nodes.set_stuck("node-b", false);
    fixture.until_config_deleted().await?;
    assert_eq!(leftovers(&fixture)?, "");
    // The operator does not remove objects of `kubectl apply -k config/default`.
    for role in [
        "multus-service-operator",
        "multus-service-controller",
        "multus-service-proxy",
    ] {
        Api::<ClusterRole>::all(fixture.client.clone()).get(role).await?;
    }
    Api::<ClusterRoleBinding>::all(fixture.client.clone())
        .get("multus-service-operator")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn foreground_deletion_keeps_the_order() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.nodes.set_stuck(NODES[0], true);
    fixture.kubectl(&[
        "delete",
        "msc",
        CONFIG_NAME,
        "--cascade=foreground",
        "--wait=false",
    ])?;
    fixture.until_conditions(&["Progressing=True/Removing"]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(fixture.proxy().await?.is_some() && fixture.controller().await?.is_some());
    fixture.nodes.set_stuck(NODES[0], false);
    fixture.until_config_deleted().await?;
    assert_eq!(leftovers(&fixture)?, "");
    Ok(())
}

/// A backup tool's finalizer: ours is removed, theirs is kept, and nothing is written meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn finalizer_of_another_client_is_kept_and_does_not_block_the_removal() -> Result<()> {
    const THEIRS: &str = "example.com/backup";
    let fixture = Fixture::installed().await?;
    let patch = |finalizers: &[&str]| {
        let patch = json!({ "metadata": { "finalizers": finalizers } }).to_string();
        fixture.kubectl(&["patch", "msc", CONFIG_NAME, "--type=merge", "-p", &patch])
    };
    patch(&[THEIRS, FINALIZER])?;
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture
        .until_conditions(&["Available=False/Removed", "Progressing=False/Removed"])
        .await?;
    let config = fixture
        .eventually("our finalizer to be removed", async || {
            let config = fixture.config().await?;
            Ok((config.finalizers() == [THEIRS]).then_some(config))
        })
        .await?;
    assert_eq!(leftovers(&fixture)?, "");
    // Longer than the requeue interval of the operator.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(
        fixture.config().await?.resource_version(),
        config.resource_version()
    );

    patch(&[])?;
    fixture.until_config_deleted().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn removed_keeps_the_configuration_and_managed_reinstalls() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.set_spec(json!({ "managementState": "Removed" })).await?;
    let config = fixture
        .until_conditions(&[
            "Available=False/Removed",
            "Progressing=False/Removed",
            "Degraded=False/AsExpected",
        ])
        .await?;
    assert_eq!(config.finalizers(), [] as [String; 0]);
    assert_eq!(config.status.context("no status")?.related_objects, []);
    assert_eq!(leftovers(&fixture)?, "");

    fixture.set_spec(json!({ "managementState": "Managed" })).await?;
    fixture.until_installed().await?;
    Ok(())
}

/// Shifts the cleanup annotation by ten minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn node_whose_cleanup_times_out_is_skipped_and_reported() -> Result<()> {
    let fixture = Fixture::installed().await?;
    fixture.nodes.set_stuck("node-a", true);
    fixture.set_spec(json!({ "managementState": "Removed" })).await?;
    fixture
        .eventually("node-a alone to be waited for", async || {
            let text = message(&fixture.config().await?, "Progressing");
            Ok((text == "Waiting for rule cleanup on nodes: node-a").then_some(()))
        })
        .await?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "annotate",
        "daemonset",
        "multus-service-proxy",
        "--overwrite",
        &format!("{CLEANUP_ANNOTATION}=2026-01-01T00:00:00Z"),
    ])?;
    let config = fixture
        .until_conditions(&["Progressing=False/Removed", "Degraded=True/NodesNotCleaned"])
        .await?;
    assert!(
        message(&config, "Degraded").contains("node-a"),
        "{}",
        message(&config, "Degraded")
    );
    assert_eq!(leftovers(&fixture)?, "");
    fixture
        .eventually("the event", async || {
            Ok(fixture.events()?.contains("node-a").then_some(()))
        })
        .await?;
    Ok(())
}
