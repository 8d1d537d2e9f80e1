//! `connectivity-test` where no pod can run: what it reports, and that it leaves nothing.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

use crate::bed::{SOON, Scene, config, define_networks, node, operands, proxy};
use crate::program::Program;

const LABEL: &str = "multusservice.cni.cncf.io/connectivity-test";

fn start(program: &Program, arguments: &[&str]) -> Result<Child> {
    let mut command = program.command(&["connectivity-test"]);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// Runs it to its end: exit code, and both outputs.
fn run(program: &Program, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    ended(start(program, arguments)?)
}

fn ended(program: Child) -> Result<(Option<i32>, String)> {
    let output = program.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    println!("{text}");
    Ok((output.status.code(), text))
}

async fn namespaces(client: &Client) -> Result<usize> {
    let api = Api::<Namespace>::all(client.clone());
    Ok(api.list(&ListParams::default().labels(LABEL)).await?.items.len())
}

/// Waits until a test has created its servers.
async fn servers_exist(client: &Client) -> Result<()> {
    let pods = Api::<Pod>::all(client.clone());
    wait::eventually(SOON, "the servers of a test to exist", async || {
        let servers = pods.list(&ListParams::default().labels("app=server")).await?;
        Ok((servers.items.len() == 2).then_some(()))
    })
    .await
}

fn signal(program: &Child, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(program.id())?), signal)?)
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_test_that_fails_or_is_ended_deletes_its_namespace() -> Result<()> {
    let options = Options {
        controller_manager: true,
        ..Options::default()
    };
    let server = Apiserver::start(options).await?;
    let client = server.client().await?;
    define_networks(&client).await?;
    operands(&client).await?;
    config(&client, json!({})).await?;
    node(&client, "node-1").await?;
    let applied = (
        "True",
        "Applied",
        "Rules are applied in 0 pods (backend nftables)",
    );
    proxy(&client, "node-1", "True", applied).await?;
    let scene = Scene::bare(&server, "connectivity").await?;
    let program = Program {
        kubeconfig: server.kubeconfig(),
        namespace: scene.namespace.clone(),
    };

    let (code, text) = run(&program, &[])?;
    ensure!(code == Some(2) && text.contains("has no network-attachment-definitions"));
    scene.network("testnet1").await?;
    let (code, text) = run(&program, &["--as=stranger"])?;
    ensure!(code == Some(2) && text.contains("no permission to"), "{text}");
    let (code, text) = run(&program, &["--node=node-9"])?;
    ensure!(code == Some(2) && text.contains("node node-9 does not exist"));
    let (code, text) = run(&program, &["other", "--timeout=2s"])?;
    ensure!(code == Some(1) && text.contains("the network-attachment-definition does not exist"));

    // No kubelet runs here.
    let (code, text) = run(&program, &["--timeout=3s"])?;
    ensure!(
        code == Some(1) && text.contains("server-1 does not start"),
        "{code:?} {text}"
    );
    ensure!(namespaces(&client).await? == 0, "a namespace is left");

    for by in [Signal::SIGINT, Signal::SIGTERM] {
        let running = start(&program, &["--timeout=5m"])?;
        servers_exist(&client).await?;
        signal(&running, by)?;
        let (code, text) = ended(running)?;
        ensure!(
            code == Some(1) && text.contains("interrupted"),
            "{by}: {code:?} {text}"
        );
        ensure!(namespaces(&client).await? == 0, "{by}: a namespace is left");
    }

    let mut running = start(&program, &["--timeout=5m"])?;
    servers_exist(&client).await?;
    signal(&running, Signal::SIGKILL)?;
    running.wait().context("the killed test")?;
    ensure!(
        namespaces(&client).await? == 1,
        "a killed test can delete nothing"
    );
    let (code, text) = run(&program, &["--cleanup"])?;
    ensure!(
        code == Some(0) && !text.contains("deleted"),
        "a young one may be in use: {text}"
    );
    // Times of creation are whole seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (code, text) = run(&program, &["--cleanup", "--older-than=1s"])?;
    ensure!(code == Some(0) && text.contains(" deleted"), "{text}");
    ensure!(namespaces(&client).await? == 0, "a namespace is left");
    Ok(())
}
