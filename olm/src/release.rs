//! The release that a bundle describes: `olm/release.yaml`.
//!
//! Pure.

use chrono::{DateTime, Utc};
use semver::Version;
use serde::{Deserialize, Serialize};

/// Version, date and images of a release.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The version of operator and operands.
    pub version: Version,
    /// Build time of its images.
    pub created: DateTime<Utc>,
    /// Architectures of every image, in the form of GOARCH.
    pub architectures: Vec<String>,
    /// Pull specifications.
    pub images: Images,
}

/// Pull specifications of a release, by digest once its images are built.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The operator.
    pub operator: String,
    /// The endpoint controller.
    pub controller: String,
    /// The proxy.
    pub proxy: String,
    /// The kubectl plugin, for must-gather and connectivity-test.
    pub tools: String,
    /// The bundle itself; a bundle cannot contain its own digest, only the catalog does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

const HEADER: &str = "# The release that bundle/ describes. `make bundle VERSION=...` names the next one, with tags; `make release VERSION=...` writes\n\
    # the digests of the images it built.\n";

impl Release {
    /// This version before its images are built: images are referenced by tags, and no field of another version is kept.
    #[must_use]
    pub fn planned(&self, version: &Version) -> Self {
        let tagged = |image: &str| format!("{}:v{version}", repository(image));
        Self {
            version: version.clone(),
            images: Images {
                operator: tagged(&self.images.operator),
                controller: tagged(&self.images.controller),
                proxy: tagged(&self.images.proxy),
                tools: tagged(&self.images.tools),
                bundle: None,
            },
            ..self.clone()
        }
    }

    /// Formats `olm/release.yaml`.
    pub fn yaml(&self) -> String {
        HEADER.to_owned() + &serde_saphyr::to_string(self).expect("a release is YAML")
    }

    /// Sets the tags of this project's images in a file of `config` to this version; the rest, comments included, is unchanged.
    pub fn tagged(&self, file: &str) -> String {
        let repositories = self.images.running().map(|(_, image)| repository(image));
        let lines = file.lines().map(|line| {
            let tagged = |repository: &&str| line.contains(&format!("{repository}:"));
            match repositories.iter().find(|repository| tagged(repository)) {
                Some(repository) => {
                    let before = line.split(repository).next().unwrap_or_default();
                    format!("{before}{repository}:v{}\n", self.version)
                }
                None => format!("{line}\n"),
            }
        });
        lines.collect()
    }
}

/// The repository of an image, such as `quay.io/multus-service/proxy`, without tag or digest.
pub fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    match name.rsplit_once(':') {
        // The colon of a registry's port is followed by a path.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

impl Images {
    /// The images that run on a cluster: (name in relatedImages, pull specification).
    pub fn running(&self) -> [(&'static str, &str); 4] {
        [
            ("operator", &self.operator),
            ("controller", &self.controller),
            ("proxy", &self.proxy),
            ("tools", &self.tools),
        ]
    }

    /// The value of an environment variable `RELATED_IMAGE_<NAME>`.
    pub fn of_variable(&self, variable: &str) -> Option<&str> {
        let name = variable.strip_prefix("RELATED_IMAGE_")?.to_lowercase();
        self.running()
            .into_iter()
            .find(|(image, _)| *image == name)
            .map(|(_, spec)| spec)
    }
}
