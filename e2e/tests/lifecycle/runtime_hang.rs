//! A container runtime that hangs, or an API server that is unavailable, under traffic: stopped by a signal, as on an overloaded machine.

use crate::proxy::Proxy;
use anyhow::{Result, ensure};
use e2e::demo::scenario::{self, Attached, NAMESPACE};
use e2e::traffic::Traffic;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(2);

/// Applies a pod that nothing attaches, or a Service for the web servers that comes later than the rest.
fn apply(file: &str, node: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/hanging")
        .join(file);
    let manifest = tempfile::NamedTempFile::new()?;
    std::fs::write(
        manifest.path(),
        std::fs::read_to_string(path)?.replace("NODE", node),
    )?;
    cluster::kubectl(&["apply", "-f", &manifest.path().display().to_string()])?;
    Ok(())
}

fn has_rules_for(client: &Attached, service: &str) -> Result<bool> {
    let vip = scenario::cluster_ip(service)?.to_string();
    let netns = cluster::netns(&client.node, client.cluster_address)?;
    let list = "nft list ruleset; iptables-legacy-save 2>/dev/null; true";
    let rules = cluster::node_exec(
        &client.node,
        &["nsenter", &format!("--net={netns}"), "sh", "-c", list],
    )?;
    Ok(rules.contains(&vip))
}

fn traffic(client: &Attached) -> Result<Traffic> {
    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    Traffic::with_streams(client, vip, 100, crate::STREAMS)
}

fn remove() -> Result<()> {
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pod/late",
        "service/late",
        "--ignore-not-found",
        "--timeout=60s",
    ])?;
    Ok(())
}

pub(crate) fn a_runtime_that_hangs(client: &Attached) -> Result<()> {
    apply("pod.yaml", &client.node)?;
    cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "pod/late",
        "--timeout=120s",
    ])?;
    let outcome = hang(client);
    remove()?;
    outcome
}

fn hang(client: &Attached) -> Result<()> {
    let traffic = traffic(client)?;
    let paused = cluster::pause_runtime(&client.node)?;
    // A pod with rules follows changes without the runtime.
    apply("service.yaml", &client.node)?;
    wait::until(
        Duration::from_secs(20),
        "a new Service to be served without the runtime",
        || has_rules_for(client, "late"),
    )?;
    // A pod that was not looked at before needs it.
    let status = format!(
        r#"k8s.v1.cni.cncf.io/network-status=[{{"name":"{NAMESPACE}/macvlan1","interface":"eth0","ips":["10.1.0.251"]}}]"#
    );
    cluster::kubectl(&["-n", NAMESPACE, "annotate", "--overwrite", "pod", "late", &status])?;
    wait::until(
        Duration::from_mins(1),
        "the condition to say that the runtime hangs",
        || {
            let [status, reason, message] = Proxy::on(&client.node)?.condition()?;
            Ok(status == "False"
                && reason == "ContainerRuntimeUnavailable"
                && message.contains("no answer within 5 s"))
        },
    )?;
    ensure!(
        Proxy::on(&client.node)?.state()?["ready"] == true,
        "other pods are served all the same"
    );
    drop(paused);
    wait::until(
        PATIENCE,
        "the condition to say that all is well but for that pod",
        || {
            let [_, reason, message] = Proxy::on(&client.node)?.condition()?;
            Ok(reason != "ContainerRuntimeUnavailable" && message.contains("late"))
        },
    )?;
    let report = traffic.stop()?;
    println!("{report}");
    report.ensure_unnoticed()
}

pub(crate) fn an_apiserver_that_is_away(client: &Attached) -> Result<()> {
    let traffic = traffic(client)?;
    let proxy = Proxy::on(&client.node)?;
    let paused = cluster::pause("kube-apiserver")?;
    std::thread::sleep(Duration::from_secs(15));
    drop(paused);
    cluster::restart("kube-apiserver")?;
    ensure!(
        Proxy::on(&client.node)?.container == proxy.container,
        "the proxy is another process"
    );
    crash_meanwhile(&proxy)?;
    let outcome = wait::until(PATIENCE, "the apiserver to take objects again", || {
        apply("service.yaml", &client.node).map(|()| true)
    })
    .and_then(|()| {
        wait::until(PATIENCE, "a new Service to be served", || {
            has_rules_for(client, "late")
        })
    });
    remove()?;
    outcome?;
    let report = traffic.stop()?;
    println!("{report}");
    report.ensure_unnoticed()
}

/// The proxy crashes while the API server is away: the next one knows nothing for a while, and takes nothing away.
fn crash_meanwhile(proxy: &Proxy) -> Result<()> {
    let pid = proxy.pid()?;
    let paused = cluster::pause("kube-apiserver")?;
    proxy.kill()?;
    wait::until(PATIENCE, "the kubelet to start another proxy", || {
        Ok(proxy.pid().is_ok_and(|another| another != pid))
    })?;
    // Longer than it takes to give up a list.
    std::thread::sleep(Duration::from_secs(10));
    drop(paused);
    proxy.wait_for_another(PATIENCE)
}
