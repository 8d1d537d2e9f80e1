//! Node conditions reported by proxies, each with the token of its own pod: a node failure degrades, a failure of a tenant's pod
//! does not.

use crate::failure_modes::{age, until_failure};
use crate::fixture::{Fixture, NODES, conditions, message};
use anyhow::{Context as _, Result, ensure};
use api::names::{PROXY, RULES_APPLIED_CONDITION};
use api::rules_applied::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

async fn proxy_on(fixture: &Fixture, node: &str) -> Result<Pod> {
    let of_node = ListParams::default()
        .labels(&format!("app.kubernetes.io/name={PROXY}"))
        .fields(&format!("spec.nodeName={node}"));
    let pods = fixture.here::<Pod>().list(&of_node).await?.items;
    pods.into_iter()
        .next()
        .with_context(|| format!("no proxy on {node}"))
}

/// Writes the condition like `proxy/src/condition.rs`; the RBAC and the admission policy of `config/rbac` are enforced.
async fn set_condition(
    fixture: &Fixture,
    node: &str,
    status: &str,
    reason: Reason,
    message: &str,
) -> Result<()> {
    let pod = proxy_on(fixture, node).await?;
    let own = fixture.server.pod_client(&pod).await?;
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

/// Reports a node without a failure, with nftables.
async fn set_applied(fixture: &Fixture, node: &str) -> Result<()> {
    let message = "Rules are applied in 1 pod (backend nftables)";
    set_condition(fixture, node, "True", Reason::Applied, message).await
}

/// Waits until the operator counts this many nodes with this backend, that is, has observed the conditions of their proxies.
async fn until_counted(fixture: &Fixture, backend: &str, nodes: i32) -> Result<()> {
    fixture
        .eventually(&format!("{nodes} nodes with {backend}"), async || {
            let proxy = fixture.config().await?.status.and_then(|status| status.proxy);
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
async fn node_failure_reported_by_its_proxy_degrades_after_the_grace_period() -> Result<()> {
    let fixture = Fixture::installed().await?;
    for node in NODES {
        set_applied(&fixture, node).await?;
    }
    let node_level: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| reason.is_node_level())
        .collect();
    assert!(node_level.len() > 2);
    for reason in node_level {
        until_counted(&fixture, "NFTables", 2).await?;
        set_condition(&fixture, "node-b", "False", reason, "see the node's log").await?;
        until_failure(&fixture, "ProxyNotServing").await?;
        let config = fixture.config().await?;
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

        age(&fixture, "failures").await?;
        let config = fixture
            .until_conditions(&["Available=True/AsExpected", "Degraded=True/ProxyNotServing"])
            .await?;
        let text = message(&config, "Degraded");
        assert_eq!(text, format!("node node-b ({reason}: see the node's log)"));
        set_applied(&fixture, "node-b").await?;
        fixture.until_installed().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn failures_caused_by_a_tenant_do_not_degrade() -> Result<()> {
    let fixture = Fixture::installed().await?;
    for node in NODES {
        set_applied(&fixture, node).await?;
    }
    until_counted(&fixture, "NFTables", 2).await?;
    let before = fixture.config().await?.status.context("no status")?;
    let text = |backend| {
        format!("Rules are applied in 1 pod (backend {backend}); 1 degraded: web/db: no network namespace")
    };
    set_condition(
        &fixture,
        "node-a",
        "False",
        Reason::PartiallyApplied,
        &text("nftables"),
    )
    .await?;
    // Shows that the first condition was observed.
    set_condition(
        &fixture,
        "node-b",
        "False",
        Reason::PartiallyApplied,
        &text("iptables-nft"),
    )
    .await?;
    until_counted(&fixture, "IPTables", 1).await?;
    let after = fixture.config().await?.status.context("no status")?;
    assert_eq!(
        (after.failures, after.conditions),
        (before.failures, before.conditions)
    );
    let proxy = after.proxy.context("no proxy")?;
    assert_eq!((proxy.unhealthy_nodes, proxy.unhealthy_node_count), (vec![], 0));
    Ok(())
}
