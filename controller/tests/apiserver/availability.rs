//! Replicas, pauses and outages: it converges and loses nothing.

use std::time::{Duration, Instant};

use crate::bed::{Controller, Scene};
use crate::leaving::own_server;
use anyhow::{Context as _, Result};
use api::names;
use e2e::apiserver::{Apiserver, Options};
use e2e::wait;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

async fn holder(server: &Apiserver) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(server.client().await?, names::NAMESPACE);
    Ok(leases
        .get_opt(names::CONTROLLER)
        .await?
        .and_then(|lease| lease.spec?.holder_identity))
}

async fn until_holder(server: &Apiserver, limit: Duration, name: &str) -> Result<()> {
    wait::eventually(limit, &format!("{name} to lead"), async || {
        Ok((holder(server).await?.as_deref() == Some(name)).then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_stopped_leader_hands_over_within_three_seconds() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let first = Controller::start(&kubeconfig, server.folder(), "first", &[])?;
    until_holder(&server, Duration::from_secs(20), "first").await?;
    let second = Controller::start(&kubeconfig, server.folder(), "second", &[])?;
    second.wait_ready().await?;
    let scene = Scene::new(&server, "handover").await?;
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    first.signal("TERM")?;
    let stopped = Instant::now();
    scene.pod("web-2", "web", &["10.1.0.3"]).await?;
    until_holder(&server, Duration::from_secs(10), "second").await?;
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(3), "took over after {took:?}");
    scene
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    assert!(first.has_ended(), "it exits");
    Ok(())
}

/// The first leader is frozen, loses its Lease, and wakes up with a decision from the past.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_leader_that_was_paused_undoes_nothing_and_exits() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let first = Controller::start(&kubeconfig, server.folder(), "paused", &[])?;
    until_holder(&server, Duration::from_secs(20), "paused").await?;
    let second = Controller::start(&kubeconfig, server.folder(), "successor", &[])?;
    second.wait_ready().await?;
    let scene = Scene::new(&server, "paused").await?;
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    first.signal("STOP")?;
    // It will see this event when it wakes, and plan from slices that are long out of date.
    scene.pod("web-2", "web", &["10.1.0.3"]).await?;
    until_holder(&server, Duration::from_secs(40), "successor").await?;
    scene
        .endpoints_until("web", &[("10.1.0.2", true), ("10.1.0.3", true)])
        .await?;
    scene.delete_pod("web-1").await?;
    scene.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    first.signal("CONT")?;
    wait::eventually(Duration::from_secs(30), "the old leader to exit", async || {
        Ok(first.has_ended().then_some(()))
    })
    .await?;
    scene.endpoints_until("web", &[("10.1.0.3", true)]).await?;
    assert_eq!(scene.slices("web").await?.len(), 1, "nothing was created twice");
    Ok(())
}

/// The API server stops answering for ninety seconds while pods change hands.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_outage_of_the_api_server_loses_nothing() -> Result<()> {
    let (server, kubeconfig) = own_server(Options::default()).await?;
    let controller = Controller::start(
        &kubeconfig,
        server.folder(),
        "outage",
        &["--leader-elect", "false"],
    )?;
    controller.wait_ready().await?;
    let scene = Scene::new(&server, "outage").await?;
    scene.service("web", json!({})).await?;
    scene.pod("web-1", "web", &["10.1.0.2"]).await?;
    scene.endpoints_until("web", &[("10.1.0.2", true)]).await?;
    let apiserver = pid_of(&server, "kube-apiserver")?;
    // The change and the outage at once: the write may be under way.
    scene.pod("web-2", "web", &["10.1.0.3"]).await?;
    kill("STOP", apiserver)?;
    tokio::time::sleep(Duration::from_secs(90)).await;
    kill("CONT", apiserver)?;
    let scene = Scene {
        client: server.client().await?,
        namespace: scene.namespace,
    };
    scene.pod("web-3", "web", &["10.1.0.4"]).await?;
    scene
        .endpoints_until(
            "web",
            &[("10.1.0.2", true), ("10.1.0.3", true), ("10.1.0.4", true)],
        )
        .await?;
    assert!(!controller.has_ended());
    assert_eq!(scene.slices("web").await?.len(), 1);
    Ok(())
}

fn kill(signal: &str, pid: u32) -> Result<()> {
    let status = std::process::Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status()?;
    anyhow::ensure!(status.success(), "signal {signal}");
    Ok(())
}

/// The process of this server, by its folder on the command line.
fn pid_of(server: &Apiserver, program: &str) -> Result<u32> {
    let folder = server.folder().to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_program = line
            .split(' ')
            .next()
            .is_some_and(|first| first.ends_with(program));
        if is_program && line.contains(&folder) {
            return Ok(pid);
        }
    }
    None.with_context(|| format!("{program} of {folder} does not run"))
}
