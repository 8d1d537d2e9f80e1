//! Nodes that no longer match the proxy's scheduling, and removals in adverse conditions.

use crate::failure_modes::{deny_daemon_sets, until_denied};
use crate::fixture::{Fixture, NAMESPACE, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::{CLEANUP, CONFIG_NAME};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use operator::cleanup::node_labels::{CLEANUP_PENDING, LABEL, PRESENT};
use serde_json::json;
use std::process::Command;

async fn label(fixture: &Fixture, node: &str) -> Result<Option<String>> {
    let node = Api::<Node>::all(fixture.client.clone()).get(node).await?;
    Ok(node.labels().get(LABEL).cloned())
}

async fn until_label(fixture: &Fixture, node: &str, want: Option<&str>) -> Result<()> {
    fixture
        .eventually(&format!("{node} to be {want:?}"), async || {
            let label = label(fixture, node).await?;
            ensure!(label.as_deref() == want, "it is {label:?}");
            Ok(Some(()))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn unscheduled_node_is_cleaned_up_and_a_rescheduled_one_is_served() -> Result<()> {
    let fixture = Fixture::installed().await?;
    until_label(&fixture, "node-a", Some(PRESENT)).await?;
    fixture.kubectl(&["label", "node", "node-a", "zone=in"])?;
    fixture.nodes.set_stuck("node-b", true);
    fixture
        .set_spec(json!({ "proxy": { "nodeSelector": { "zone": "in" } } }))
        .await?;
    until_label(&fixture, "node-b", Some(CLEANUP_PENDING)).await?;
    let cleanup: DaemonSet = fixture
        .eventually("the cleanup", async || {
            Ok(fixture.here::<DaemonSet>().get_opt(CLEANUP).await?)
        })
        .await?;
    let template = serde_json::to_value(cleanup.spec.context("no spec")?.template)?;
    assert_eq!(
        template.pointer("/spec/nodeSelector/multusservice.cni.cncf.io~1rules"),
        Some(&json!(CLEANUP_PENDING))
    );
    // Not before it is clean.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(label(&fixture, "node-b").await?.as_deref(), Some(CLEANUP_PENDING));
    fixture.nodes.set_stuck("node-b", false);
    until_label(&fixture, "node-b", None).await?;
    fixture
        .eventually("the cleanup to be deleted", async || {
            Ok(fixture
                .here::<DaemonSet>()
                .get_opt(CLEANUP)
                .await?
                .is_none()
                .then_some(()))
        })
        .await?;
    fixture.until_installed().await?;

    fixture.kubectl(&["label", "node", "node-b", "zone=in"])?;
    until_label(&fixture, "node-b", Some(PRESENT)).await?;
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture.until_config_deleted().await?;
    assert_eq!(
        (label(&fixture, "node-a").await?, label(&fixture, "node-b").await?),
        (None, None)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn deletion_while_the_operator_is_down_completes_after_its_restart() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.stop_operator().await?;
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    // A manual deletion of the DaemonSet: only node labels record the nodes to clean up.
    fixture.kubectl(&["-n", NAMESPACE, "delete", "daemonset", "multus-service-proxy"])?;
    fixture.nodes.set_stuck("node-a", true);
    fixture.start_operator(true).await?;
    until_label(&fixture, "node-a", Some(CLEANUP_PENDING)).await?;
    until_label(&fixture, "node-b", None).await?;
    assert!(fixture.configs().get_opt(CONFIG_NAME).await?.is_some() && fixture.controller().await?.is_some());
    fixture.nodes.set_stuck("node-a", false);
    fixture.until_config_deleted().await?;
    assert_eq!(label(&fixture, "node-a").await?, None);
    Ok(())
}

/// The namespace is deleted with the operator, and the CRD waits for the configuration.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn reinstalled_operator_completes_the_removal() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.stop_operator().await?;
    fixture.kubectl(&["delete", "-k", &repository("config/default"), "--wait=false"])?;
    fixture
        .eventually("the namespace to be deleted", async || {
            let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(fixture.client.clone());
            Ok(namespaces.get_opt(NAMESPACE).await?.is_none().then_some(()))
        })
        .await?;
    ensure!(
        fixture.configs().get_opt(CONFIG_NAME).await?.is_some(),
        "the configuration did not wait"
    );
    fixture.kubectl(&["apply", "-k", &repository("config/default")])?;
    fixture.start_operator(true).await?;
    fixture.until_config_deleted().await?;
    assert_eq!(
        (label(&fixture, "node-a").await?, label(&fixture, "node-b").await?),
        (None, None)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn uninstall_command_removes_everything_without_an_operator() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.stop_operator().await?;
    let uninstall = |fixture: &Fixture, timeout: &str| {
        Command::new(env!("CARGO_BIN_EXE_multus-service-operator"))
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(fixture.server.kubeconfig())
            .args(["uninstall", "--node-timeout", timeout])
            .output()
    };
    fixture.nodes.set_stuck("node-b", true);
    let output = tokio::task::block_in_place(|| uninstall(&fixture, "0s"))?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && words.contains("node-b"), "{output:?}");
    ensure!(fixture.configs().get_opt(CONFIG_NAME).await?.is_none() && fixture.controller().await?.is_none());
    assert_eq!(label(&fixture, "node-b").await?.as_deref(), Some("skipped"));

    // The next installation includes such a node, and a removal that waits leaves nothing.
    fixture.nodes.set_stuck("node-b", false);
    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    fixture.until_installed().await?;
    fixture.stop_operator().await?;
    let output = tokio::task::block_in_place(|| uninstall(&fixture, "30s"))?;
    ensure!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("no node"),
        "{output:?}"
    );
    assert_eq!(
        (label(&fixture, "node-a").await?, label(&fixture, "node-b").await?),
        (None, None)
    );
    Ok(())
}

/// Shifts the time in the status by ten minutes: the DaemonSet cannot carry the annotation.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn daemon_set_that_cannot_be_updated_does_not_block_the_removal_for_ever() -> Result<()> {
    let fixture = Fixture::installed().await?;
    deny_daemon_sets(&fixture, "frozen")?;
    until_denied(&fixture).await?;
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture
        .eventually("the removal to have its clock", async || {
            let status = fixture.config().await?.status.context("no status")?;
            Ok(status.rollout.filter(|rollout| rollout.progress == "Removing"))
        })
        .await?;
    let past = json!({ "status": { "rollout": { "lastProgressTime": "2026-01-01T00:00:00Z" } } });
    fixture.kubectl(&[
        "patch",
        "msc",
        CONFIG_NAME,
        "--subresource=status",
        "--type=merge",
        "-p",
        &past.to_string(),
    ])?;
    fixture.until_config_deleted().await?;
    assert_eq!(
        (
            label(&fixture, "node-a").await?.as_deref(),
            label(&fixture, "node-b").await?.as_deref()
        ),
        (Some("skipped"), Some("skipped"))
    );
    Ok(())
}

/// A deleted node needs no cleanup; an unreachable one is waited for, and skipped at the time limit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn unreachable_and_deleted_nodes_do_not_block_a_removal() -> Result<()> {
    let fixture = Fixture::installed().await?;
    for node in ["node-a", "node-b"] {
        fixture.nodes.set_stuck(node, true);
    }
    let away = json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } });
    fixture.kubectl(&[
        "patch",
        "node",
        "node-a",
        "--subresource=status",
        "--type=strategic",
        "-p",
        &away.to_string(),
    ])?;
    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    fixture
        .until_conditions(&["Progressing=True/Removing", "Degraded=False/AsExpected"])
        .await?;
    fixture.kubectl(&["delete", "node", "node-b"])?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pods",
        "--field-selector=spec.nodeName=node-b",
        "--force",
        "--grace-period=0",
    ])?;
    fixture
        .eventually("node-a alone to be waited for", async || {
            let text = message(&fixture.config().await?, "Progressing");
            ensure!(
                text == "Waiting for rule cleanup on nodes: node-a",
                "message: {text}"
            );
            Ok(Some(()))
        })
        .await?;
    fixture.kubectl(&["delete", "node", "node-a"])?;
    fixture.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pods",
        "--field-selector=spec.nodeName=node-a",
        "--force",
        "--grace-period=0",
    ])?;
    fixture.until_config_deleted().await
}

/// The namespace deletes every proxy: there is nothing to wait for, however long the limit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn uninstall_command_does_not_wait_where_no_node_can_be_cleaned_up() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    fixture.stop_operator().await?;
    fixture.kubectl(&["delete", "-k", &repository("config/default"), "--wait=false"])?;
    let output = tokio::task::block_in_place(|| {
        Command::new("timeout")
            .args([
                "100",
                env!("CARGO_BIN_EXE_multus-service-operator"),
                "--namespace",
                NAMESPACE,
                "--kubeconfig",
            ])
            .arg(fixture.server.kubeconfig())
            .arg("uninstall")
            .output()
    })?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && words.contains("node-a, node-b"),
        "{output:?}"
    );
    ensure!(
        fixture
            .configs()
            .get_opt(CONFIG_NAME)
            .await
            .ok()
            .flatten()
            .is_none(),
        "the configuration is still there"
    );
    Ok(())
}
