//! What proxies say of their nodes, each with the token of its own pod: a node that cannot be served degrades, a tenant's pod does not.

use crate::bed::{Bed, NODES, conditions, message};
use crate::trouble::{age, until_failure};
use anyhow::{Context as _, Result, ensure};
use api::names::{PROXY, RULES_APPLIED_CONDITION};
use api::rules_applied::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

async fn proxy_on(bed: &Bed, node: &str) -> Result<Pod> {
    let of_node = ListParams::default()
        .labels(&format!("app.kubernetes.io/name={PROXY}"))
        .fields(&format!("spec.nodeName={node}"));
    let pods = bed.here::<Pod>().list(&of_node).await?.items;
    pods.into_iter()
        .next()
        .with_context(|| format!("no proxy on {node}"))
}

/// As `proxy/src/condition.rs` writes it; the rights and the admission policy of `config/rbac` are in force.
async fn say(bed: &Bed, node: &str, status: &str, reason: Reason, message: &str) -> Result<()> {
    let pod = proxy_on(bed, node).await?;
    let own = bed.server.pod_client(&pod).await?;
    let condition = json!({
        "type": RULES_APPLIED_CONDITION, "status": status, "reason": reason.as_str(), "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let patch = json!({ "status": { "conditions": [condition] } });
    let namespace = pod.namespace().context("no namespace")?;
    Api::<Pod>::namespaced(own, &namespace)
        .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(())
}

/// Waits until the operator counts this many nodes by this backend: then it has seen what their proxies say.
async fn until_counted(bed: &Bed, backend: &str, nodes: i32) -> Result<()> {
    bed.eventually(&format!("{nodes} nodes with {backend}"), async || {
        let proxy = bed.config().await?.status.and_then(|status| status.proxy);
        let backends = proxy.map(|proxy| proxy.backends).unwrap_or_default();
        let counted = backends.iter().find(|counted| counted.name == backend);
        ensure!(
            counted.map_or(0, |counted| counted.nodes) == nodes,
            "counted: {backends:?}"
        );
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_node_that_its_proxy_cannot_serve_degrades_after_a_while() -> Result<()> {
    let bed = Bed::installed().await?;
    for node in NODES {
        say(
            &bed,
            node,
            "True",
            Reason::Applied,
            "nftables: pods with rules: 1",
        )
        .await?;
    }
    let node_level: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| reason.is_node_level())
        .collect();
    assert!(node_level.len() > 2);
    for reason in node_level {
        until_counted(&bed, "NFTables", 2).await?;
        say(&bed, "node-b", "False", reason, "see the node's log").await?;
        until_failure(&bed, "ProxyNotServing").await?;
        let config = bed.config().await?;
        assert!(conditions(&config).contains(&"Degraded=False/AsExpected".to_owned()));
        let unhealthy = config
            .status
            .and_then(|status| status.proxy)
            .context("no proxy")?
            .unhealthy_nodes;
        let named: Vec<_> = unhealthy
            .iter()
            .map(|node| (node.name.as_str(), node.reason.as_str()))
            .collect();
        assert_eq!(named, [("node-b", reason.as_str())]);

        age(&bed, "failures").await?;
        let config = bed
            .until_conditions(&["Available=True/AsExpected", "Degraded=True/ProxyNotServing"])
            .await?;
        let told = message(&config, "Degraded");
        assert_eq!(told, format!("node node-b ({reason}: see the node's log)"));
        say(
            &bed,
            "node-b",
            "True",
            Reason::Applied,
            "nftables: pods with rules: 1",
        )
        .await?;
        bed.until_installed().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn what_a_tenant_brings_about_is_no_trouble_of_the_operator() -> Result<()> {
    let bed = Bed::installed().await?;
    for node in NODES {
        say(
            &bed,
            node,
            "True",
            Reason::Applied,
            "nftables: pods with rules: 1",
        )
        .await?;
    }
    until_counted(&bed, "NFTables", 2).await?;
    let before = bed.config().await?.status.context("no status")?;
    let message =
        |backend| format!("{backend}: pods with rules: 1; not served: web/db: no network namespace");
    say(
        &bed,
        "node-a",
        "False",
        Reason::PartiallyApplied,
        &message("nftables"),
    )
    .await?;
    // What says that the first was seen.
    say(
        &bed,
        "node-b",
        "False",
        Reason::PartiallyApplied,
        &message("iptables-nft"),
    )
    .await?;
    until_counted(&bed, "IPTables", 1).await?;
    let after = bed.config().await?.status.context("no status")?;
    assert_eq!(
        (after.failures, after.conditions),
        (before.failures, before.conditions)
    );
    let proxy = after.proxy.context("no proxy")?;
    assert_eq!((proxy.unhealthy_nodes, proxy.unhealthy_node_count), (vec![], 0));
    Ok(())
}
