//! From any version to any other, outside OLM, which alone would reject a way: it is gone, said, and leaves nothing.

use crate::bed::state::state;
use crate::bed::{Bed, message, repository};
use anyhow::{Context as _, Result, ensure};
use api::names::CONFIG_NAME;
use serde_json::{Value, json};

/// What the Deployment of a release has.
fn release(bed: &mut Bed, version: &str) {
    bed.environment.insert("OPERATOR_VERSION", version.to_owned());
    for variable in ["RELATED_IMAGE_CONTROLLER", "RELATED_IMAGE_PROXY"] {
        let image = format!("release/{}:v{version}", variable.to_lowercase());
        bed.environment.insert(variable, image);
    }
}

async fn versions(bed: &Bed) -> Result<[Option<String>; 3]> {
    let status = bed.config().await?.status.context("no status")?;
    Ok([
        status.operator_version,
        status.target_version,
        status.observed_version,
    ])
}

/// Another operator, while no new pod becomes ready: what it says on the way, and whether it gets there.
async fn go(bed: &mut Bed, (from, to): (&str, &str), reason: &str) -> Result<()> {
    bed.stop_operator().await?;
    release(bed, to);
    bed.nodes.set_holding(true);
    bed.start_operator(true).await?;
    let progressing = format!("Progressing=True/{reason}");
    let config = bed
        .until_conditions(&[
            &progressing,
            "Available=True/AsExpected",
            "Degraded=False/AsExpected",
            "Upgradeable=False/RolloutInProgress",
        ])
        .await?;
    let told = message(&config, "Progressing");
    ensure!(told.starts_with(&format!("From {from} to {to}: ")), "{told}");
    let on_the_way = [to, to, from].map(|version| Some(version.to_owned()));
    assert_eq!(versions(bed).await?, on_the_way);

    bed.nodes.set_holding(false);
    bed.until_installed().await?;
    assert_eq!(
        versions(bed).await?,
        [to; 3].map(|version| Some(version.to_owned()))
    );
    let events = bed.events()?;
    let event = format!("Controller and proxies run version {to}, before {from}");
    ensure!(events.contains(&event), "{events}");
    Ok(())
}

/// Everything there is, and no image of another version.
async fn left(bed: &Bed, version: &str) -> Result<Value> {
    let state = Box::pin(state(bed)).await?;
    let text = state.to_string();
    let images = text.matches("release/related_image_").count();
    let of_this = text.matches(&format!(":v{version}\"")).count();
    ensure!(images == 2 && of_this == 2, "{state:#}");
    Ok(state)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_version_may_be_skipped_and_gone_back_to_and_nothing_of_the_way_is_left() -> Result<()> {
    let mut bed = Bed::start().await?;
    release(&mut bed, "0.1.0");
    bed.start_operator(true).await?;
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    bed.set_spec(
        json!({ "logLevel": "Debug", "proxy": { "nodeSelector": { "kubernetes.io/os": "linux" } } }),
    )
    .await?;
    bed.until_installed().await?;
    let spec = serde_json::to_value(bed.config().await?.spec)?;

    go(&mut bed, ("0.1.0", "0.3.0"), "Upgrading").await?;
    left(&bed, "0.3.0").await?;
    go(&mut bed, ("0.3.0", "0.2.0"), "Downgrading").await?;
    let end = left(&bed, "0.2.0").await?;
    assert_eq!(serde_json::to_value(bed.config().await?.spec)?, spec);

    bed.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    bed.kubectl(&["apply", "-k", &repository("config/samples")])?;
    bed.set_spec(spec).await?;
    bed.until_installed().await?;
    let fresh = left(&bed, "0.2.0").await?;
    ensure!(end == fresh, "after the way: {end:#}\nfresh: {fresh:#}");
    Ok(())
}
