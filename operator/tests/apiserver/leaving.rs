//! Nodes that leave the placement, and removals in bad circumstances.

use crate::bed::{Bed, NAMESPACE, message, repository};
use crate::trouble::{deny_daemon_sets, until_denied};
use anyhow::{Context as _, Result, ensure};
use api::names::{CLEANUP, CONFIG_NAME};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use operator::nodes::{LABEL, LEAVING, PRESENT};
use serde_json::json;
use std::process::Command;

async fn label(bed: &Bed, node: &str) -> Result<Option<String>> {
    let node = Api::<Node>::all(bed.client.clone()).get(node).await?;
    Ok(node.labels().get(LABEL).cloned())
}

async fn until_label(bed: &Bed, node: &str, want: Option<&str>) -> Result<()> {
    bed.eventually(&format!("{node} to be {want:?}"), async || {
        let label = label(bed, node).await?;
        ensure!(label.as_deref() == want, "it is {label:?}");
        Ok(Some(()))
    })
    .await
}

async fn until_gone(bed: &Bed) -> Result<()> {
    bed.eventually("the configuration to go", async || {
        Ok(bed.configs().get_opt(CONFIG_NAME).await?.is_none().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_that_leaves_the_placement_is_cleaned_and_one_that_returns_is_served() -> Result<()> {
    let bed = Bed::installed().await?;
    until_label(&bed, "node-a", Some(PRESENT)).await?;
    bed.kubectl(&["label", "node", "node-a", "zone=in"])?;
    bed.nodes.set_stuck("node-b", true);
    bed.set_spec(json!({ "proxy": { "nodeSelector": { "zone": "in" } } }))
        .await?;
    until_label(&bed, "node-b", Some(LEAVING)).await?;
    let clean_up: DaemonSet = bed
        .eventually("the clean-up", async || {
            Ok(bed.here::<DaemonSet>().get_opt(CLEANUP).await?)
        })
        .await?;
    let template = serde_json::to_value(clean_up.spec.context("no spec")?.template)?;
    assert_eq!(
        template.pointer("/spec/nodeSelector/multusservice.cni.cncf.io~1rules"),
        Some(&json!(LEAVING))
    );
    // Not before it is clean.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(label(&bed, "node-b").await?.as_deref(), Some(LEAVING));
    bed.nodes.set_stuck("node-b", false);
    until_label(&bed, "node-b", None).await?;
    bed.eventually("the clean-up to go", async || {
        Ok(bed
            .here::<DaemonSet>()
            .get_opt(CLEANUP)
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    bed.until_installed().await?;

    bed.kubectl(&["label", "node", "node-b", "zone=in"])?;
    until_label(&bed, "node-b", Some(PRESENT)).await?;
    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    until_gone(&bed).await?;
    assert_eq!(
        (label(&bed, "node-a").await?, label(&bed, "node-b").await?),
        (None, None)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_deletion_while_the_operator_is_down_is_done_when_it_is_back() -> Result<()> {
    let mut bed = Bed::installed().await?;
    bed.stop_operator().await?;
    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    // Somebody was impatient: without the DaemonSet only the labels of nodes tell that there is something to clean.
    bed.kubectl(&["-n", NAMESPACE, "delete", "daemonset", "multus-service-proxy"])?;
    bed.nodes.set_stuck("node-a", true);
    bed.start_operator(true).await?;
    until_label(&bed, "node-a", Some(LEAVING)).await?;
    until_label(&bed, "node-b", None).await?;
    assert!(bed.configs().get_opt(CONFIG_NAME).await?.is_some() && bed.controller().await?.is_some());
    bed.nodes.set_stuck("node-a", false);
    until_gone(&bed).await?;
    assert_eq!(label(&bed, "node-a").await?, None);
    Ok(())
}

/// The namespace goes with the operator, and the CRD waits for the configuration.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn when_the_operator_went_first_applying_it_again_finishes_the_removal() -> Result<()> {
    let mut bed = Bed::installed().await?;
    bed.stop_operator().await?;
    bed.kubectl(&["delete", "-k", &repository("config/default"), "--wait=false"])?;
    bed.eventually("the namespace to go", async || {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(bed.client.clone());
        Ok(namespaces.get_opt(NAMESPACE).await?.is_none().then_some(()))
    })
    .await?;
    ensure!(
        bed.configs().get_opt(CONFIG_NAME).await?.is_some(),
        "the configuration did not wait"
    );
    bed.kubectl(&["apply", "-k", &repository("config/default")])?;
    bed.start_operator(true).await?;
    until_gone(&bed).await?;
    assert_eq!(
        (label(&bed, "node-a").await?, label(&bed, "node-b").await?),
        (None, None)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_break_glass_command_removes_everything_without_an_operator() -> Result<()> {
    let mut bed = Bed::installed().await?;
    bed.stop_operator().await?;
    let uninstall = |bed: &Bed, timeout: &str| {
        Command::new(env!("CARGO_BIN_EXE_multus-service-operator"))
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(bed.server.kubeconfig())
            .args(["uninstall", "--node-timeout", timeout])
            .output()
    };
    bed.nodes.set_stuck("node-b", true);
    let said = tokio::task::block_in_place(|| uninstall(&bed, "0s"))?;
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success() && words.contains("node-b"), "{said:?}");
    ensure!(bed.configs().get_opt(CONFIG_NAME).await?.is_none() && bed.controller().await?.is_none());
    assert_eq!(label(&bed, "node-b").await?.as_deref(), Some("skipped"));

    // The next installation takes such a node up again, and a patient removal leaves nothing.
    bed.nodes.set_stuck("node-b", false);
    bed.start_operator(true).await?;
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    bed.until_installed().await?;
    bed.stop_operator().await?;
    let said = tokio::task::block_in_place(|| uninstall(&bed, "30s"))?;
    ensure!(
        said.status.success() && String::from_utf8_lossy(&said.stdout).contains("no node"),
        "{said:?}"
    );
    assert_eq!(
        (label(&bed, "node-a").await?, label(&bed, "node-b").await?),
        (None, None)
    );
    Ok(())
}

/// Ten minutes are made to have passed by an older time in the status: the DaemonSet cannot be dated.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_daemon_set_that_cannot_become_a_clean_up_does_not_hold_the_removal_up_for_ever() -> Result<()> {
    let bed = Bed::installed().await?;
    deny_daemon_sets(&bed, "frozen")?;
    until_denied(&bed).await?;
    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    bed.eventually("the removal to have its clock", async || {
        let status = bed.config().await?.status.context("no status")?;
        Ok(status.rollout.filter(|rollout| rollout.progress == "Removing"))
    })
    .await?;
    let past = json!({ "status": { "rollout": { "lastProgressTime": "2026-01-01T00:00:00Z" } } });
    bed.kubectl(&[
        "patch",
        "msc",
        CONFIG_NAME,
        "--subresource=status",
        "--type=merge",
        "-p",
        &past.to_string(),
    ])?;
    until_gone(&bed).await?;
    assert_eq!(
        (
            label(&bed, "node-a").await?.as_deref(),
            label(&bed, "node-b").await?.as_deref()
        ),
        (Some("skipped"), Some("skipped"))
    );
    Ok(())
}

/// A node that went takes its rules along; one that is away is waited for, and skipped when its time is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn nodes_that_are_away_or_gone_hold_no_removal_up() -> Result<()> {
    let bed = Bed::installed().await?;
    for node in ["node-a", "node-b"] {
        bed.nodes.set_stuck(node, true);
    }
    let away = json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } });
    bed.kubectl(&[
        "patch",
        "node",
        "node-a",
        "--subresource=status",
        "--type=strategic",
        "-p",
        &away.to_string(),
    ])?;
    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?;
    bed.until_conditions(&["Progressing=True/Removing", "Degraded=False/AsExpected"])
        .await?;
    bed.kubectl(&["delete", "node", "node-b"])?;
    bed.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pods",
        "--field-selector=spec.nodeName=node-b",
        "--force",
        "--grace-period=0",
    ])?;
    bed.eventually("node-a alone to be awaited", async || {
        let told = message(&bed.config().await?, "Progressing");
        ensure!(told == "Waiting for nodes to be clean: node-a", "told: {told}");
        Ok(Some(()))
    })
    .await?;
    bed.kubectl(&["delete", "node", "node-a"])?;
    bed.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pods",
        "--field-selector=spec.nodeName=node-a",
        "--force",
        "--grace-period=0",
    ])?;
    until_gone(&bed).await
}

/// The namespace takes every proxy with it: there is nothing to wait for, whatever the limit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn the_break_glass_command_does_not_wait_where_no_node_can_be_cleaned() -> Result<()> {
    let mut bed = Bed::installed().await?;
    bed.stop_operator().await?;
    bed.kubectl(&["delete", "-k", &repository("config/default"), "--wait=false"])?;
    let said = tokio::task::block_in_place(|| {
        Command::new("timeout")
            .args([
                "100",
                env!("CARGO_BIN_EXE_multus-service-operator"),
                "--namespace",
                NAMESPACE,
                "--kubeconfig",
            ])
            .arg(bed.server.kubeconfig())
            .arg("uninstall")
            .output()
    })?;
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(
        said.status.success() && words.contains("node-a, node-b"),
        "{said:?}"
    );
    ensure!(
        bed.configs().get_opt(CONFIG_NAME).await.ok().flatten().is_none(),
        "the configuration is still there"
    );
    Ok(())
}
