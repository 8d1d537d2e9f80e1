//! Static checks of the community catalogs' pipeline for a pull request: the configuration files beside the bundle, and the update graph.
//! <https://github.com/redhat-openshift-ecosystem/operator-pipelines>, `operatorcert/static_tests`

use super::Finding;
use olm::community::config::{Ci, ReleaseConfig};
use olm::graph::{Channel, Entry};
use olm::npm_range;
use semver::Version;
use serde_json::Value;
use std::collections::BTreeSet;

/// The package in the branch of a pull request.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    /// `ci.yaml`.
    pub(crate) ci: Value,
    /// `release-config.yaml` of the new version.
    pub(crate) release_config: Value,
    /// The channels, with what the ClusterServiceVersions replace and skip.
    pub(crate) channels: Vec<Channel>,
    /// Every version that has a bundle.
    pub(crate) versions: BTreeSet<String>,
}

type Check = (&'static str, fn(&Submitted) -> Vec<String>);

const CHECKS: &[Check] = &[
    ("check_schema_operator_ci_config", ci),
    ("check_catalog_usage_ci_config", catalog_usage),
    ("check_using_fbc", using_fbc),
    ("check_validate_schema_bundle_release_config", release_config),
    ("check_bundle_release_config", templates),
    ("check_replaces_exists", replaces),
    ("check_upgrade_graph_loop", loops),
];

/// Runs every check.
pub(crate) fn run(submitted: &Submitted) -> Vec<Finding> {
    let found = |(check, run): &Check| -> Vec<Finding> {
        let messages = run(submitted).into_iter();
        messages.map(|message| Finding { check, message }).collect()
    };
    CHECKS.iter().flat_map(found).collect()
}

/// The names of all checks.
pub(crate) fn names() -> BTreeSet<&'static str> {
    CHECKS.iter().map(|(name, _)| *name).collect()
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Vec<String>> {
    serde_json::from_value(value.clone()).map_err(|error| vec![error.to_string()])
}

fn ci(submitted: &Submitted) -> Vec<String> {
    typed(&submitted.ci).map_or_else(|faults| faults, |ci: Ci| ci.reviewer_faults())
}

fn catalog_usage(submitted: &Submitted) -> Vec<String> {
    typed(&submitted.ci).map_or_else(|faults| faults, |ci: Ci| ci.mapping_faults())
}

fn using_fbc(submitted: &Submitted) -> Vec<String> {
    let enabled = submitted.ci["fbc"]["enabled"] == true;
    (!enabled)
        .then(|| "new packages start with fbc".to_owned())
        .into_iter()
        .collect()
}

fn release_config(submitted: &Submitted) -> Vec<String> {
    typed(&submitted.release_config)
        .map_or_else(|faults| faults, |config: ReleaseConfig| config.list_faults())
}

fn templates(submitted: &Submitted) -> Vec<String> {
    let config: Result<ReleaseConfig, _> = typed(&submitted.release_config);
    match (config, typed(&submitted.ci)) {
        (Ok(config), Ok(ci)) => config.mapping_faults(&ci),
        (Err(faults), _) | (_, Err(faults)) => faults,
    }
}

/// For file-based catalogs `check_replaces_availability` is skipped and this one is not.
fn replaces(submitted: &Submitted) -> Vec<String> {
    let entries = submitted.channels.iter().flat_map(|channel| &channel.entries);
    entries
        .filter_map(|entry| entry.replaces.as_ref())
        .filter(|name| !submitted.versions.contains(*name))
        .map(|name| format!("it replaces {name:?}, which was never submitted"))
        .collect()
}

/// Follows every update from the lowest version of a channel.
fn loops(submitted: &Submitted) -> Vec<String> {
    let mut found = Vec::new();
    for channel in &submitted.channels {
        let lowest = channel.entries.iter().min_by_key(|entry| version(entry));
        found.extend(lowest.and_then(|entry| follow(channel, entry, &[])));
    }
    found
}

fn follow(channel: &Channel, at: &Entry, visited: &[&str]) -> Option<String> {
    let path = [visited, &[at.name.as_str()]].concat();
    if visited.contains(&at.name.as_str()) {
        return Some(format!(
            "{}: updates in a loop: {}",
            channel.name,
            path.join(" -> ")
        ));
    }
    let mut next = channel.entries.iter().filter(|entry| updates(entry, at));
    next.find_map(|entry| follow(channel, entry, &path))
}

fn updates(entry: &Entry, installed: &Entry) -> bool {
    let in_range = |range: &String| npm_range::contains(range, &version(installed)?);
    entry.replaces.as_ref() == Some(&installed.name)
        || entry.skips.contains(&installed.name)
        || entry.skip_range.as_ref().and_then(in_range) == Some(true)
}

fn version(entry: &Entry) -> Option<Version> {
    Version::parse(entry.name.split_once(".v")?.1).ok()
}
