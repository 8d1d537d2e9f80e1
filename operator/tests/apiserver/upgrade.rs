//! Upgrades between any two versions, without OLM, which alone would reject a path: the rollout is reported and leaves no objects
//! behind.

use crate::fixture::cluster_state::state;
use crate::fixture::{Fixture, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::CONFIG_NAME;
use serde_json::{Value, json};

/// Environment of the Deployment of a release.
fn release(fixture: &mut Fixture, version: &str) {
    fixture.environment.insert("OPERATOR_VERSION", version.to_owned());
    for variable in ["RELATED_IMAGE_CONTROLLER", "RELATED_IMAGE_PROXY"] {
        let image = format!("release/{}:v{version}", variable.to_lowercase());
        fixture.environment.insert(variable, image);
    }
}

async fn versions(fixture: &Fixture) -> Result<[Option<String>; 3]> {
    let status = fixture.config().await?.status.context("no status")?;
    Ok([
        status.operator_version,
        status.target_version,
        status.observed_version,
    ])
}

/// Starts another operator, while no new pod becomes ready, and checks its status during and after the rollout.
async fn change_version(fixture: &mut Fixture, (from, to): (&str, &str), reason: &str) -> Result<()> {
    fixture.stop_operator().await?;
    release(fixture, to);
    fixture.nodes.set_holding(true);
    fixture.start_operator(true).await?;
    let progressing = format!("Progressing=True/{reason}");
    let config = fixture
        .until_conditions(&[
            &progressing,
            "Available=True/AsExpected",
            "Degraded=False/AsExpected",
            "Upgradeable=False/RolloutInProgress",
        ])
        .await?;
    let text = message(&config, "Progressing");
    ensure!(
        text.starts_with(&format!("Changing from version {from} to {to}: ")),
        "{text}"
    );
    let on_the_way = [to, to, from].map(|version| Some(version.to_owned()));
    assert_eq!(versions(fixture).await?, on_the_way);

    fixture.nodes.set_holding(false);
    fixture.until_installed().await?;
    assert_eq!(
        versions(fixture).await?,
        [to; 3].map(|version| Some(version.to_owned()))
    );
    // Events are queued: the conditions may be there before.
    let event = format!("Operands changed from version {from} to {to}");
    fixture
        .eventually(&format!("the Event {event:?}"), async || {
            Ok(fixture.events()?.contains(&event).then_some(()))
        })
        .await
}

/// All objects, and no image of another version.
async fn left(fixture: &Fixture, version: &str) -> Result<Value> {
    let state = Box::pin(state(fixture)).await?;
    let text = state.to_string();
    let images = text.matches("release/related_image_").count();
    let of_this = text.matches(&format!(":v{version}\"")).count();
    ensure!(images == 2 && of_this == 2, "{state:#}");
    Ok(state)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn version_can_be_skipped_and_rolled_back_without_leftovers() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    release(&mut fixture, "0.1.0");
    fixture.start_operator(true).await?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    fixture
        .set_spec(
            json!({ "logLevel": "Debug", "proxy": { "nodeSelector": { "kubernetes.io/os": "linux" } } }),
        )
        .await?;
    fixture.until_installed().await?;
    let spec = serde_json::to_value(fixture.config().await?.spec)?;

    change_version(&mut fixture, ("0.1.0", "0.3.0"), "Upgrading").await?;
    left(&fixture, "0.3.0").await?;
    change_version(&mut fixture, ("0.3.0", "0.2.0"), "Downgrading").await?;
    let end = left(&fixture, "0.2.0").await?;
    assert_eq!(serde_json::to_value(fixture.config().await?.spec)?, spec);

    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    fixture.kubectl(&["apply", "-k", &repository("config/samples")])?;
    fixture.set_spec(spec).await?;
    fixture.until_installed().await?;
    let fresh = left(&fixture, "0.2.0").await?;
    ensure!(end == fresh, "after the upgrades: {end:#}\nfresh: {fresh:#}");
    Ok(())
}
