//! Reads images out of archives, for [`super::policy`].
//!
//! Reads: archives, by tar.

use super::policy::Image;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use testbed::command;

/// Reads the images of an OCI archive, one an architecture, with the name of the architecture.
pub fn oci(archive: &Path, name: &str) -> Result<Vec<(String, Image)>> {
    let archive = archive.display().to_string();
    let blob = |object: &Value| {
        let digest = object["digest"].as_str().unwrap_or_default();
        digest.replacen("sha256:", "blobs/sha256/", 1)
    };
    let json = |member: &str| -> Result<Value> {
        let text = command::run("tar", &["-xOf", &archive, member])?;
        Ok(serde_json::from_str(&text)?)
    };
    let index = json(&blob(&json("index.json")?["manifests"][0]))?;
    let mut images = Vec::new();
    for entry in index["manifests"].as_array().context("no index")? {
        let architecture = entry["platform"]["architecture"].as_str().unwrap_or_default();
        let manifest = json(&blob(entry))?;
        let config = json(&blob(&manifest["config"]))?;
        let layers = manifest["layers"].as_array().context("no layers")?;
        let layers: Vec<String> = layers.iter().map(&blob).collect();
        images.push((architecture.to_owned(), image(name, &config, &archive, &layers)?));
    }
    Ok(images)
}

/// Reads the image of a docker-archive.
pub fn docker(archive: &Path, name: &str) -> Result<Image> {
    let archive = archive.display().to_string();
    let json = |member: &str| -> Result<Value> {
        let text = command::run("tar", &["-xOf", &archive, member])?;
        Ok(serde_json::from_str(&text)?)
    };
    let manifest = json("manifest.json")?;
    let config = json(manifest[0]["Config"].as_str().context("no configuration")?)?;
    let layers = manifest[0]["Layers"].as_array().context("no layers")?;
    let layers = layers
        .iter()
        .filter_map(|layer| layer.as_str().map(str::to_owned));
    image(name, &config, &archive, &layers.collect::<Vec<_>>())
}

fn image(name: &str, config: &Value, archive: &str, layers: &[String]) -> Result<Image> {
    let labels = config["config"]["Labels"].as_object();
    let labels = labels.into_iter().flatten();
    let mut files = BTreeMap::new();
    for layer in layers {
        files.extend(files_of(archive, layer)?);
    }
    Ok(Image {
        name: name.to_owned(),
        labels: labels
            .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
            .collect(),
        user: config["config"]["User"].as_str().unwrap_or_default().to_owned(),
        layers: layers.len(),
        files,
    })
}

/// Files of a layer, and their sizes. `tar --verbose`: mode, owner, size, date, time, name, and of a link its target.
fn files_of(archive: &str, layer: &str) -> Result<Vec<(String, u64)>> {
    // bash: a layer that cannot be read must fail, not be empty.
    let list = format!(
        "set -o pipefail; tar -xOf '{archive}' '{layer}' | {{ f=$(mktemp); cat >\"$f\"; tar -tvf \"$f\"; s=$?; rm \"$f\"; exit $s; }}"
    );
    let listed = command::run("bash", &["-c", &list])?;
    let file = |line: &str| {
        let mut words = line.split_whitespace();
        let size = words.nth(2)?.parse().ok()?;
        let name = words.nth(2)?;
        let name = name.trim_start_matches("./").trim_end_matches('/');
        Some((name.to_owned(), size))
    };
    Ok(listed
        .lines()
        .filter_map(file)
        .filter(|(name, _)| !name.is_empty())
        .collect())
}
