//! Kills the operator after its k-th write, for every third k of an installation, a change, an upgrade and a removal, and for every
//! k with `MULTUS_SERVICE_LONG` (`make nightly`); a restarted operator must reach the same state as an undisturbed one.

use crate::fixture::cluster_state::state;
use crate::fixture::crash_proxy::CrashProxy;
use crate::fixture::{Fixture, conditions, repository};
use crate::openshift::define_the_console;
use anyhow::{Context as _, Result, ensure};
use api::names::CONFIG_NAME;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One step of the lifecycle, from an armed proxy to the settled state.
async fn step(
    fixture: &mut Fixture,
    crash_proxy: &Arc<CrashProxy>,
    fatal: usize,
    step: Step,
) -> Result<(bool, Value)> {
    if step == Step::Upgrade {
        fixture.environment = next_release();
        fixture.replace_proxied_operator().await?;
    } else if step == Step::Install && !fixture.environment.is_empty() {
        fixture.environment.clear();
        fixture.replace_proxied_operator().await?;
    }
    crash_proxy.arm(fatal, fixture.operator_pid()?);
    match step {
        Step::Install => fixture.kubectl(&["apply", "-k", &repository("config/samples")])?,
        Step::Change => fixture.kubectl(&["patch", "msc", CONFIG_NAME, "--type=merge", "-p", CHANGE])?,
        // Its first write follows a full read of the cluster: the proxy is armed by then.
        Step::Upgrade => String::new(),
        Step::Remove => fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--wait=false"])?,
    };
    fixture
        .eventually("the settled state or the kill", async || {
            // In this order: the write that ends the step may be the fatal one, and is visible before it is counted.
            let is_done = is_done(fixture, step).await? && crash_proxy.is_quiet();
            Ok((is_done || crash_proxy.has_killed()).then_some(()))
        })
        .await?;
    // The final status update is a write, too.
    let killed = crash_proxy.disarm();
    if killed {
        fixture.restart_killed_operator().await?;
        fixture
            .eventually("the settled state", async || {
                Ok(is_done(fixture, step).await?.then_some(()))
            })
            .await?;
    }
    Ok((killed, Box::pin(state(fixture)).await?))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Install,
    Change,
    Upgrade,
    Remove,
}

const TOMORROW: &str = "9.9.9-test";

/// Environment of a newer operator's Deployment.
fn next_release() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("OPERATOR_VERSION", TOMORROW.to_owned()),
        ("RELATED_IMAGE_CONTROLLER", "release/controller:v2".to_owned()),
        ("RELATED_IMAGE_PROXY", "release/proxy:v2".to_owned()),
    ])
}

const CHANGE: &str = r#"{"spec":{"logLevel":"Debug","controller":{"replicas":1},"networkPolicy":{"mode":"Disabled"},"proxy":{"backend":"IPTables"}}}"#;

async fn is_done(fixture: &Fixture, step: Step) -> Result<bool> {
    let Some(config) = fixture.configs().get_opt(CONFIG_NAME).await? else {
        return Ok(step == Step::Remove);
    };
    let status = config.status.clone().unwrap_or_default();
    let settled = [
        "Available=True/AsExpected",
        "Progressing=False/AsExpected",
        "Degraded=False/AsExpected",
    ];
    let conditions = conditions(&config);
    let is_settled = settled.iter().all(|want| conditions.iter().any(|is| is == want));
    let is_reached = step != Step::Upgrade || status.observed_version.as_deref() == Some(TOMORROW);
    Ok(is_reached
        && step != Step::Remove
        && status.observed_generation == config.metadata.generation
        && is_settled)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn operator_killed_after_odd_writes_reaches_the_same_state() -> Result<()> {
    Box::pin(kill_after_each(1)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn operator_killed_after_even_writes_reaches_the_same_state() -> Result<()> {
    Box::pin(kill_after_each(4)).await
}

/// Numbers of the writes of each step after which the operator is killed; the other half of them is another test.
fn fatal_writes(first: usize, is_long: bool) -> impl Iterator<Item = usize> {
    let (first, stride) = if is_long { (2 - first % 2, 2) } else { (first, 6) };
    (first..=60).step_by(stride)
}

/// Kills after each of [`fatal_writes`].
async fn kill_after_each(first: usize) -> Result<()> {
    let is_long = std::env::var_os("MULTUS_SERVICE_LONG").is_some();
    let mut fixture = Fixture::start().await?;
    define_the_console(&fixture).await?;
    let crash_proxy = fixture.start_operator_behind_crash_proxy().await?;
    let mut undisturbed = BTreeMap::new();
    let steps = [Step::Install, Step::Change, Step::Upgrade, Step::Remove];
    for each in steps {
        let (killed, end) = Box::pin(step(&mut fixture, &crash_proxy, 0, each)).await?;
        ensure!(!killed);
        undisturbed.insert(format!("{each:?}"), end);
    }
    let mut kills = 0;
    for fatal in fatal_writes(first, is_long) {
        let mut any = false;
        for each in steps {
            let (killed, end) = Box::pin(step(&mut fixture, &crash_proxy, fatal, each)).await?;
            let want = undisturbed.get(&format!("{each:?}")).context("no such step")?;
            ensure!(
                end == *want,
                "{each:?}, killed after write {fatal}: {end:#}\nundisturbed: {want:#}"
            );
            any |= killed;
            kills += usize::from(killed);
        }
        if !any {
            eprintln!("{kills} kills, the longest flow has less than {fatal} writes");
            ensure!(kills > 4, "only {kills} kills: the crash proxy counts nothing");
            return Ok(());
        }
    }
    anyhow::bail!("after 60 writes no flow has ended")
}
