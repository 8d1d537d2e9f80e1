//! Two replicas, and an API server that becomes unavailable.

use crate::fixture::{Fixture, NAMESPACE};
use anyhow::{Context as _, Result, ensure};
use api::names::{OPERATOR, PART_OF};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::time::{Duration, Instant};

async fn lease(fixture: &Fixture) -> Result<(String, i32)> {
    let lease = fixture.here::<Lease>().get(OPERATOR).await?;
    let spec = lease.spec.context("no spec")?;
    Ok((
        spec.holder_identity.unwrap_or_default(),
        spec.lease_transitions.unwrap_or_default(),
    ))
}

/// Expiry of the Lease.
async fn runs_out(fixture: &Fixture) -> Result<Timestamp> {
    let spec = fixture
        .here::<Lease>()
        .get(OPERATOR)
        .await?
        .spec
        .context("no spec")?;
    let renewed = spec.renew_time.context("never renewed")?.0;
    let duration = spec.lease_duration_seconds.context("no duration")?;
    Ok(renewed + SignedDuration::from_secs(duration.into()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn one_of_two_replicas_leads_and_the_other_takes_over() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    let (_rival, crash_proxy) = fixture.start_second_operator("second").await?;
    fixture
        .eventually("the second operator to ask for the Lease", async || {
            Ok((crash_proxy.requests() > 1).then_some(()))
        })
        .await?;
    fixture.set_spec(json!({ "logLevel": "Debug" })).await?;
    fixture.until_installed().await?;
    assert_eq!(crash_proxy.writes(), 0, "the replica without the Lease wrote");

    let stopped = Instant::now();
    fixture.stop_operator().await?;
    fixture
        .eventually("the second operator to hold the Lease", async || {
            let (holder, _) = lease(&fixture).await?;
            ensure!(holder == "second", "{holder:?} holds it");
            Ok(Some(()))
        })
        .await?;
    eprintln!("taken over {:.1?} after the signal to stop", stopped.elapsed());
    fixture
        .set_spec(json!({ "logLevel": "Normal", "proxy": { "backend": "IPTables" } }))
        .await?;
    fixture.until_installed().await?;
    ensure!(crash_proxy.writes() > 0, "the second operator wrote nothing");
    Ok(())
}

/// Less than the 78 s that the Lease tolerates (137 s, renewed every 26 s).
const AWAY: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn unavailable_api_server_changes_no_condition_and_no_leader_within_a_minute() -> Result<()> {
    let mut fixture = Fixture::installed().await?;
    let pid = fixture.operator_pid()?;
    // A second operator would take an expired Lease.
    let (_rival, crash_proxy) = fixture.start_second_operator("second").await?;
    fixture
        .eventually("the second operator to ask for the Lease", async || {
            Ok((crash_proxy.requests() > 1).then_some(()))
        })
        .await?;
    // Any phase of the renewals, which are 26 s apart.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let phase = Duration::from_millis(u64::from(now.subsec_micros()) % 26_000);
    tokio::time::sleep(phase).await;
    let before = (lease(&fixture).await?, conditions(&fixture).await?);

    let runs_out = runs_out(&fixture).await?;
    fixture.server.stop_apiserver();
    tokio::time::sleep(AWAY).await;
    fixture.server.start_apiserver().await?;
    assert!(
        Timestamp::now() < runs_out,
        "the second operator may take the Lease"
    );

    // An operand that no condition mentions.
    fixture.kubectl(&["-n", NAMESPACE, "delete", "networkpolicy", PART_OF])?;
    fixture
        .eventually("drift to be repaired again", async || {
            Ok(fixture.here::<NetworkPolicy>().get_opt(PART_OF).await?)
        })
        .await?;
    // The condition after the reconcile that repaired it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = (lease(&fixture).await?, conditions(&fixture).await?);
    assert_eq!(after, before, "phase {phase:?}");
    assert!(fixture.operator_is_alive()?, "process {pid} has ended");
    assert_eq!(crash_proxy.writes(), 0, "the second operator wrote");
    Ok(())
}

/// All conditions with their times.
async fn conditions(fixture: &Fixture) -> Result<Vec<Condition>> {
    Ok(fixture.config().await?.status.context("no status")?.conditions)
}
