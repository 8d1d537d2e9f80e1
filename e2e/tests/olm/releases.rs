//! Three releases of the product for upgrades: what this checkout is, under three versions, each with images and a bundle of its own.

use anyhow::{Result, anyhow};
use olm::Platform;
use olm::{Bundle, PACKAGE, Source, catalog};
use semver::Version;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::OnceLock;
use testbed::images::Image;

/// The channel of the test's catalog.
pub(crate) const CHANNEL: &str = "stable-v0";

/// A release.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) version: Version,
    /// Operator, controller, proxy.
    pub(crate) images: [Image; 4],
    pub(crate) bundle: Bundle,
}

impl Release {
    /// The name of its ClusterServiceVersion.
    pub(crate) fn csv(&self) -> String {
        olm::csv_name(&self.version)
    }
}

/// 0.1.0, 0.2.0 and 0.3.0. The first caller builds their images and loads them into both nodes.
pub(crate) fn releases() -> Result<[&'static Release; 3]> {
    static RELEASES: OnceLock<Result<[Release; 3], String>> = OnceLock::new();
    let outcome = RELEASES.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    outcome
        .as_ref()
        .map(<[Release; 3]>::each_ref)
        .map_err(|error| anyhow!("the releases could not be made: {error}"))
}

fn build() -> Result<[Release; 3]> {
    let say = |line: &str| eprintln!("{line}");
    let images = |version: &str| -> Result<[Image; 4]> {
        let images = xtask::images::release_images(version, &say)?;
        testbed::cluster::load_images(&images, &say)?;
        images
            .try_into()
            .map_err(|images| anyhow!("four images, not {images:?}"))
    };
    let (first, second) = (images("0.1.0")?, images("0.2.0")?);
    // Two sets of images are enough to see an update; the third release shares the first's.
    Ok([
        release(Version::new(0, 1, 0), first.clone())?,
        release(Version::new(0, 2, 0), second)?,
        release(Version::new(0, 3, 0), first)?,
    ])
}

fn release(version: Version, images: [Image; 4]) -> Result<Release> {
    let mut source = Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    source.release.version = version.clone();
    source.template = published(&[]);
    source.template.push(channel(&[&version]));
    let [operator, controller, proxy, tools] = images.each_ref().map(|image| image.name.clone());
    source.release.images = olm::release::Images {
        operator,
        controller,
        proxy,
        tools,
        bundle: None,
    };
    Ok(Release {
        version,
        images,
        bundle: Bundle::render(&source, Platform::Openshift)?,
    })
}

/// The catalog with these releases, each replacing the one before. Bundles are in it themselves: no image of them is needed.
pub(crate) fn published(releases: &[&Release]) -> Vec<Value> {
    let mut blobs = vec![json!({"schema": "olm.package", "name": PACKAGE, "defaultChannel": CHANNEL})];
    if !releases.is_empty() {
        let versions: Vec<_> = releases.iter().map(|release| &release.version).collect();
        blobs.push(channel(&versions));
    }
    blobs.extend(
        releases
            .iter()
            .filter_map(|release| catalog::entry(&release.bundle, None).ok()),
    );
    blobs
}

/// A channel with these versions, each replacing the one before.
fn channel(versions: &[&Version]) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    for version in versions {
        let name = olm::csv_name(version);
        let before = entries.last().map(|entry| entry["name"].clone());
        entries.push(json!({"name": name}));
        if let (Some(before), Some(entry)) = (before, entries.last_mut()) {
            entry["replaces"] = before;
            entry["skips"] = json!([format!("{name}-rc.1")]);
        }
    }
    json!({"schema": "olm.channel", "package": PACKAGE, "name": CHANNEL, "entries": entries})
}
