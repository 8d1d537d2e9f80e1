//! Pull requests to the community catalogs.
//!
//! Pure, except for [`PullRequest::write`]. OpenShift's catalog (`redhat-openshift-ecosystem/community-operators-prod`) is file-based: a
//! bundle brings `release-config.yaml`, by which the pipeline adds it to channels of a template, and channels change later by the
//! template alone. OperatorHub.io's (`k8s-operatorhub/community-operators`) takes channels and updates from the bundle.

pub mod config;

use crate::bundle::{self, Bundle};
use crate::graph::{self, Entry};
use crate::{PACKAGE, Platform, Source, catalog, csv_name, source, text};
use config::{Ci, Placement, ReleaseConfig, UpdateGraph};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The template of the package in a catalog's `catalog-templates`.
pub const TEMPLATE: &str = "basic.yaml";

/// Why there is no pull request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle cannot be rendered or written.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The input files are not usable.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A version that would enter every channel at once.
    #[error(
        "{name} is in candidate-v0 only, and OperatorHub.io cannot promote a bundle later: wait until stable-v0 has it"
    )]
    NotStable {
        /// The ClusterServiceVersion.
        name: String,
    },
    /// The catalog's template has a version that olm/catalog-template.yaml lacks.
    #[error("the catalog's template has {name:?}, which olm/catalog-template.yaml lacks")]
    Unknown {
        /// The ClusterServiceVersion.
        name: String,
    },
    /// A default channel without a version that the catalog has.
    #[error(
        "the catalog's template has no version of the default channel {channel:?}: wait until its pipeline has added one"
    )]
    NoDefault {
        /// The channel.
        channel: String,
    },
}

/// The files of a version in a community catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Files of `operators/<package>/<version>`.
    pub version: Bundle,
    /// Files of `operators/<package>` that only the first pull request brings: the pipeline changes them later.
    pub first: BTreeMap<String, String>,
}

impl PullRequest {
    /// Renders the pull request with the source's release.
    pub fn render(source: &Source, platform: Platform) -> Result<Self, Error> {
        let mut version = Bundle::render(source, platform)?;
        // The pipelines write their own.
        version.files.remove("bundle.Dockerfile");
        let ci = source.ci()?;
        let mut first = BTreeMap::new();
        match platform {
            Platform::Openshift => {
                version.files.insert(
                    "release-config.yaml".to_owned(),
                    bundle::yaml(&json!(release_config(source))),
                );
                first.insert("ci.yaml".to_owned(), document(&json!(ci)));
                first.insert(
                    format!("catalog-templates/{TEMPLATE}"),
                    document(&template(&[package(source)])),
                );
            }
            Platform::Kubernetes => {
                is_stable(source)?;
                let ci = Ci {
                    update_graph: Some(UpdateGraph::ReplacesMode),
                    fbc: None,
                    ..ci
                };
                first.insert("ci.yaml".to_owned(), document(&json!(ci)));
            }
        }
        Ok(Self { version, first })
    }

    /// Writes the files into a clone of the catalog, or an empty folder. Files of the first pull request that are there are unchanged.
    pub fn write(&self, source: &Source, clone: &Path) -> Result<(), Error> {
        let operator = clone.join("operators").join(PACKAGE);
        self.version
            .write(&operator.join(source.release.version.to_string()))?;
        for (name, content) in &self.first {
            let path = operator.join(name);
            if !path.exists() {
                bundle::write_file(&path, content)?;
            }
        }
        Ok(())
    }
}

/// Where the source's release enters the template: its entries in the channels of olm/catalog-template.yaml.
fn release_config(source: &Source) -> ReleaseConfig {
    let name = csv_name(&source.release.version);
    let mut catalog_templates: Vec<Placement> = Vec::new();
    for channel in graph::channels(&source.template) {
        let Some(entry) = channel.entry(&name) else {
            continue;
        };
        let placement = placement(entry);
        let same = |other: &&mut Placement| {
            Placement {
                channels: Vec::new(),
                ..(**other).clone()
            } == placement
        };
        match catalog_templates.iter_mut().find(same) {
            Some(other) => other.channels.push(channel.name),
            None => catalog_templates.push(Placement {
                channels: vec![channel.name],
                ..placement
            }),
        }
    }
    ReleaseConfig {
        merge: None,
        catalog_templates,
    }
}

fn placement(entry: &Entry) -> Placement {
    Placement {
        template_name: TEMPLATE.to_owned(),
        channels: Vec::new(),
        replaces: entry.replaces.clone(),
        skips: (!entry.skips.is_empty()).then(|| entry.skips.clone()),
        skip_range: entry.skip_range.clone(),
    }
}

/// The catalog's template with the channels, the default channel and the deprecations of olm/catalog-template.yaml. Its bundles, which
/// the pipeline added, are unchanged; versions that it lacks are left out.
pub fn promoted(theirs: &Value, source: &Source) -> Result<String, Error> {
    let blobs: Vec<Value> = crate::items(theirs, "/entries").cloned().collect();
    let known = versions(&blobs);
    if let Some(name) = known.difference(&versions(&source.template)).next() {
        return Err(Error::Unknown { name: name.clone() });
    }
    let mut entries = vec![package(source)];
    for blob in &source.template {
        let mut blob = blob.clone();
        let name = match text(&blob, "/schema") {
            "olm.channel" => "/name",
            "olm.deprecations" => "/reference/name",
            _ => continue,
        };
        if let Some(list) = blob["entries"].as_array_mut() {
            list.retain(|entry| known.contains(text(entry, name)));
        }
        if crate::items(&blob, "/entries").next().is_some() {
            entries.push(blob);
        }
    }
    let default = graph::default_channel(&source.template);
    if !graph::channels(&entries)
        .iter()
        .any(|channel| channel.name == default)
    {
        return Err(Error::NoDefault {
            channel: default.to_owned(),
        });
    }
    let bundles = blobs
        .into_iter()
        .filter(|blob| text(blob, "/schema") == "olm.bundle");
    entries.extend(bundles);
    Ok(document(&template(&entries)))
}

/// Names of the versions in channels.
fn versions(blobs: &[Value]) -> BTreeSet<String> {
    graph::channels(blobs)
        .into_iter()
        .flat_map(|channel| channel.entries)
        .map(|entry| entry.name)
        .collect()
}

/// The package, with its icon.
fn package(source: &Source) -> Value {
    let package = source
        .template
        .iter()
        .find(|blob| text(blob, "/schema") == "olm.package");
    catalog::with_icon(package.cloned().unwrap_or_default(), source)
}

fn template(entries: &[Value]) -> Value {
    json!({"schema": "olm.template.basic", "entries": entries})
}

fn document(value: &Value) -> String {
    format!(
        "---\n{}",
        serde_saphyr::to_string(value).expect("a JSON value is YAML")
    )
}

fn is_stable(source: &Source) -> Result<(), Error> {
    let name = csv_name(&source.release.version);
    let channels = graph::channels(&source.template);
    let mut stable = channels.iter().filter(|channel| channel.is_stable());
    if stable.any(|channel| channel.entry(&name).is_some()) {
        return Ok(());
    }
    Err(Error::NotStable { name })
}
