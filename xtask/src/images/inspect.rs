//! Reads images out of archives, for [`super::policy`].
//!
//! Reads: archives, by tar.

use super::policy::Image;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use testbed::command;

/// Reads the images of an OCI archive, one an architecture, with the name of the architecture.
pub fn oci(archive: &Path, name: &str) -> Result<Vec<(String, Image)>> {
    let layout = Layout::open(archive);
    let mut images = Vec::new();
    for (architecture, manifest) in layout.manifests()? {
        let config = layout.json(&blob(&manifest["config"]))?;
        let layers = layers(&manifest)?;
        images.push((architecture, image(name, &config, &layout.archive, &layers)?));
    }
    Ok(images)
}

/// Extracts a file of the image for an architecture into a folder. Its layer is the last.
pub fn extract(archive: &Path, architecture: &str, file: &str, folder: &Path) -> Result<()> {
    let layout = Layout::open(archive);
    let manifests = layout.manifests()?;
    let found = manifests.iter().find(|(name, _)| name == architecture);
    let (_, manifest) = found.with_context(|| format!("no image for {architecture}"))?;
    let layers = layers(manifest)?;
    let last = layers.last().context("no layers")?;
    let (archive, folder) = (&layout.archive, folder.display().to_string());
    // From a file, so that tar finds out the compression.
    let unpack = "set -e; layer=$(mktemp); trap 'rm \"$layer\"' EXIT; tar -xOf \"$0\" \"$1\" >\"$layer\"; tar -xf \"$layer\" -C \"$2\" \"$3\"";
    command::run("bash", &["-c", unpack, archive, last, &folder, file])?;
    Ok(())
}

/// An OCI archive.
struct Layout {
    archive: String,
}

impl Layout {
    fn open(archive: &Path) -> Self {
        Self {
            archive: archive.display().to_string(),
        }
    }

    fn json(&self, member: &str) -> Result<Value> {
        let text = command::run("tar", &["-xOf", &self.archive, member])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The manifests of the index, by architecture.
    fn manifests(&self) -> Result<Vec<(String, Value)>> {
        let index = self.json(&blob(&self.json("index.json")?["manifests"][0]))?;
        let entries = index["manifests"].as_array().context("no index")?;
        let manifest = |entry: &Value| {
            let architecture = entry["platform"]["architecture"].as_str().unwrap_or_default();
            Ok((architecture.to_owned(), self.json(&blob(entry))?))
        };
        entries.iter().map(manifest).collect()
    }
}

fn blob(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    digest.replacen("sha256:", "blobs/sha256/", 1)
}

fn layers(manifest: &Value) -> Result<Vec<String>> {
    let layers = manifest["layers"].as_array().context("no layers")?;
    Ok(layers.iter().map(blob).collect())
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
    let (mut files, mut links) = (BTreeMap::new(), BTreeSet::new());
    for layer in layers {
        for (file, size, is_link) in files_of(archive, layer)? {
            if is_link {
                links.insert(file.clone());
            }
            files.insert(file, size);
        }
    }
    Ok(Image {
        name: name.to_owned(),
        labels: labels
            .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
            .collect(),
        user: config["config"]["User"].as_str().unwrap_or_default().to_owned(),
        layers: layers.len(),
        files,
        links,
    })
}

/// Files of a layer, their sizes, and whether each is a symbolic link. `tar --verbose`: mode, owner, size, date, time, name, and of a link its target.
fn files_of(archive: &str, layer: &str) -> Result<Vec<(String, u64, bool)>> {
    // From a file, so that tar finds out the compression. A layer that cannot be read must fail, not be empty.
    let list = "set -e; layer=$(mktemp); trap 'rm \"$layer\"' EXIT; tar -xOf \"$0\" \"$1\" >\"$layer\"; tar -tvf \"$layer\"";
    let listed = command::run("bash", &["-c", list, archive, layer])?;
    let file = |line: &str| {
        let mut words = line.split_whitespace();
        let size = words.nth(2)?.parse().ok()?;
        let name = words.nth(2)?;
        let name = name.trim_start_matches("./").trim_end_matches('/');
        Some((name.to_owned(), size, line.starts_with('l')))
    };
    Ok(listed
        .lines()
        .filter_map(file)
        .filter(|(name, ..)| !name.is_empty())
        .collect())
}
