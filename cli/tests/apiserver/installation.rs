//! What is wrong with the installation: a server of its own, on which no controller runs.

use std::time::Duration;

use anyhow::Result;
use api::MultusServiceConfig;
use api::names;
use cli::chain::State;
use cli::check::check;
use cli::facts::{self, Reader};
use cli::situations::Cause;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::apiserver::{Apiserver, Options};

use crate::bed::{Scene, config, define_networks, node, operands};

async fn managed(client: &Client, state: &str) -> Result<()> {
    config(client, json!({"managementState": state})).await
}

async fn report(client: &Client, condition: Value) -> Result<()> {
    let configs: Api<MultusServiceConfig> = Api::all(client.clone());
    let status = json!({"status": {"conditions": [condition]}});
    configs
        .patch_status(
            names::CONFIG_NAME,
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await?;
    Ok(())
}

/// A Lease that a controller renewed so many seconds ago.
async fn lease(client: &Client, ago: i64) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), names::NAMESPACE);
    let renewed = Timestamp::from_second(Timestamp::now().as_second() - ago)?;
    let spec = json!({"holderIdentity": "controller-1", "leaseDurationSeconds": 15, "renewTime": format!("{renewed:.6}")});
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": names::CONTROLLER}, "spec": spec}))?;
    if leases.get_opt(names::CONTROLLER).await?.is_some() {
        leases
            .patch(
                names::CONTROLLER,
                &PatchParams::default(),
                &Patch::Merge(&json!({"spec": spec})),
            )
            .await?;
    } else {
        leases.create(&PostParams::default(), &lease).await?;
    }
    Ok(())
}

/// What `check` finds that an installation needs and the cluster lacks.
async fn lacking(client: &Client) -> Vec<&'static str> {
    let reader = Reader::new(client.clone(), Duration::from_secs(30));
    let check = check(&facts::installation(&reader, "default").await);
    assert_eq!(check.is_installed, Some(false), "{check:?}");
    check.broken().map(|line| line.group).collect()
}

/// From a bare cluster to a controller that does not follow: each step takes one cause away and shows the next.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_installation_that_does_not_serve_is_named() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let client = server.client().await?;
    let scene = Scene::bare(&server, "shop").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.service(json!({})).await?;
    scene.breaks(Cause::MultusMissing).await?;
    assert_eq!(lacking(&client).await, ["multus"]);
    define_networks(&client).await?;
    scene.network("testnet1").await?;
    scene.breaks(Cause::NotInstalled).await?;
    assert_eq!(lacking(&client).await, [""; 0]);

    operands(&client).await?;
    node(&client, "node-1").await?;
    managed(&client, "Removed").await?;
    scene.breaks(Cause::Removed).await?;

    managed(&client, "Managed").await?;
    scene.breaks(Cause::NoLeader).await?;
    lease(&client, 600).await?;
    let link = scene.breaks(Cause::NoLeader).await?;
    assert!(link.says.contains("controller-1 renewed its Lease"), "{link:?}");

    lease(&client, 0).await?;
    let link = scene.says(Cause::StaleSlices, State::Broken, None).await?;
    assert!(
        link.says.contains("they read_error 10.1.0.2 port 8080/tcp"),
        "{link:?}"
    );

    // What is right already needs no leader.
    let other = Scene::bare(&server, "idle").await?;
    other.network("testnet1").await?;
    other
        .service(json!({"spec": {"selector": {"app": "none"}}}))
        .await?;
    lease(&client, 600).await?;
    let idle = other.explain(None).await;
    assert_eq!(idle.cause(), Some(Cause::SelectorMatchesNothing), "{idle:?}");
    assert!(
        idle.chain
            .links
            .iter()
            .any(|link| (link.cause, link.state) == (Some(Cause::NoLeader), State::Warning))
    );

    managed(&client, "Unmanaged").await?;
    let unmanaged = other.explain(None).await;
    assert!(
        unmanaged
            .chain
            .links
            .iter()
            .any(|link| (link.cause, link.state) == (Some(Cause::Unmanaged), State::Warning)),
        "{unmanaged:?}"
    );
    managed(&client, "Managed").await?;
    report(&client, json!({"type": "Degraded", "status": "True", "reason": "ProxyUnavailable", "message": "1 node", "lastTransitionTime": "2026-01-01T00:00:00Z"})).await?;
    let degraded = other.explain(None).await;
    let link = degraded
        .chain
        .links
        .iter()
        .find(|link| link.cause == Some(Cause::Degraded));
    assert!(
        link.is_some_and(|link| link.says.contains("Degraded=True (ProxyUnavailable): 1 node")),
        "{degraded:?}"
    );
    Ok(())
}
