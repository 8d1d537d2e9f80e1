//! Nodes that leave the placement, and removals in bad circumstances.

use crate::bed::{Bed, NAMESPACE, repository};
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
