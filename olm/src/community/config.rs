//! Configuration files of the community catalogs' pipelines.
//!
//! Pure. The types are the pipelines' JSON schemas (`operatorcert/schemas` of operator-pipelines); the functions check what types cannot.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `operators/<package>/ci.yaml`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Ci {
    /// GitHub accounts whose pull requests are merged without the approval of the catalog's maintainers: those of `project.yaml`.
    #[serde(default)]
    pub reviewers: Vec<String>,
    /// Source of the update graph of bundles, without file-based catalogs.
    #[serde(rename = "updateGraph", default, skip_serializing_if = "Option::is_none")]
    pub update_graph: Option<UpdateGraph>,
    /// File-based catalogs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fbc: Option<Fbc>,
}

/// How a catalog connects bundles to an update graph.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateGraph {
    /// By `replaces` and `skips` of each ClusterServiceVersion.
    ReplacesMode,
    /// By version.
    SemverMode,
}

/// File-based catalogs of a package.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Fbc {
    /// Bundles enter catalogs by templates.
    pub enabled: bool,
    /// What happens to the package when a version of OpenShift is added.
    pub version_promotion_strategy: Promotion,
    /// The catalogs of each template.
    pub catalog_mapping: Vec<Mapping>,
}

/// Whether the pipeline adds the package to the catalog of the next OpenShift.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Promotion {
    /// No.
    Never,
    /// Yes.
    Always,
    /// By a pull request that a reviewer approves.
    ReviewNeeded,
}

/// The catalogs that are rendered from a template.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// File in `catalog-templates`.
    pub template_name: String,
    /// Folders in `catalogs`, such as `v4.17`.
    pub catalog_names: Vec<String>,
    /// Format of the template.
    pub r#type: TemplateType,
}

/// A format of `opm alpha render-template`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateType {
    /// Channels with their entries.
    #[serde(rename = "olm.template.basic")]
    Basic,
    /// Channels by version.
    #[serde(rename = "olm.semver")]
    Semver,
}

/// `operators/<package>/<version>/release-config.yaml`: where the pipeline adds the released bundle.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ReleaseConfig {
    /// Whether the pull request with the catalogs is merged without approval; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<bool>,
    /// Places in templates.
    pub catalog_templates: Vec<Placement>,
}

/// Channels of a template that get the bundle, and its edges there.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// File in `catalog-templates`.
    pub template_name: String,
    /// Channels.
    pub channels: Vec<String>,
    /// The replaced version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Skipped versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skips: Option<Vec<String>>,
    /// A range of versions that are updated to this one.
    #[serde(rename = "skipRange", default, skip_serializing_if = "Option::is_none")]
    pub skip_range: Option<String>,
}

impl Ci {
    /// Why the pipeline would reject the mapping of templates.
    pub fn mapping_faults(&self) -> Vec<String> {
        let (mut faults, mut seen) = (Vec::new(), BTreeSet::new());
        for mapping in self.fbc.iter().flat_map(|fbc| &fbc.catalog_mapping) {
            if mapping.catalog_names.is_empty() {
                faults.push(format!("{:?} has no catalog", mapping.template_name));
            }
            let twice = mapping.catalog_names.iter().filter(|name| !seen.insert(*name));
            faults.extend(twice.map(|name| format!("the catalog {name:?} is mapped twice")));
        }
        faults
    }

    /// File-based catalogs, if they are enabled.
    pub fn enabled_fbc(&self) -> Option<&Fbc> {
        self.fbc.as_ref().filter(|fbc| fbc.enabled)
    }

    /// Why the pipeline, or GitHub, would reject the reviewers.
    pub fn reviewer_faults(&self) -> Vec<String> {
        if self.reviewers.is_empty() {
            return vec!["reviewers is empty: name a GitHub account".to_owned()];
        }
        let strange = self.reviewers.iter().filter(|name| !is_account(name));
        strange
            .map(|name| format!("the reviewer {name:?} is no GitHub account"))
            .collect()
    }
}

impl ReleaseConfig {
    /// Why the pipeline would reject the file by itself.
    pub fn list_faults(&self) -> Vec<String> {
        if self.catalog_templates.is_empty() {
            return vec!["catalog_templates is empty".to_owned()];
        }
        let mut faults = Vec::new();
        for (number, placement) in self.catalog_templates.iter().enumerate() {
            if self.catalog_templates[..number].contains(placement) || !placement.lists_are_sets() {
                let name = &placement.template_name;
                faults.push(format!("{name:?} has empty lists or items that occur twice"));
            }
        }
        faults
    }

    /// Why the pipeline would reject the file beside this `ci.yaml`.
    pub fn mapping_faults(&self, ci: &Ci) -> Vec<String> {
        let Some(fbc) = ci.enabled_fbc() else {
            return vec!["ci.yaml does not enable fbc".to_owned()];
        };
        let is_mapped = |name: &str| {
            fbc.catalog_mapping
                .iter()
                .any(|mapping| mapping.template_name == name)
        };
        let names = self
            .catalog_templates
            .iter()
            .map(|placement| &placement.template_name);
        names
            .filter(|name| !is_mapped(name))
            .map(|name| format!("the template {name:?} is in no catalog_mapping"))
            .collect()
    }
}

impl Placement {
    fn lists_are_sets(&self) -> bool {
        let is_set =
            |list: &[String]| !list.is_empty() && list.iter().collect::<BTreeSet<_>>().len() == list.len();
        is_set(&self.channels) && self.skips.as_deref().is_none_or(is_set)
    }
}

/// The rules of GitHub for names of accounts. Names from examples are not accepted.
fn is_account(name: &str) -> bool {
    const EXAMPLES: [&str; 6] = ["todo", "example", "placeholder", "username", "user1", "user2"];
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    name.len() < 40 && name.split('-').all(is_part) && !EXAMPLES.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::account("octo-cat1", true)]
    #[case::empty("", false)]
    #[case::example("<github-account>", false)]
    #[case::todo("TODO", false)]
    #[case::address("@octocat", false)]
    #[case::two_hyphens("octo--cat", false)]
    #[case::too_long(&"a".repeat(40), false)]
    fn reviewer_is_a_github_account(#[case] name: &str, #[case] accepted: bool) {
        let ci = Ci {
            reviewers: vec![name.to_owned()],
            update_graph: None,
            fbc: None,
        };
        let faults = ci.reviewer_faults();
        assert_eq!(faults.is_empty(), accepted, "{faults:?}");
    }
}
