//! The release that a bundle describes: `olm/release.yaml`.

use chrono::{DateTime, Utc};
use semver::Version;
use serde::{Deserialize, Serialize};

/// Version, date and images of a release.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The version of operator and operands.
    pub version: Version,
    /// When its images were made.
    pub created: DateTime<Utc>,
    /// Architectures, as in GOARCH, that every image has.
    pub architectures: Vec<String>,
    /// Pull specifications.
    pub images: Images,
}

/// Pull specifications of a release, by digest once its images are made.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The operator.
    pub operator: String,
    /// The endpoint controller.
    pub controller: String,
    /// The proxy.
    pub proxy: String,
    /// The bundle itself; a bundle does not hold its own digest, only the catalog does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

impl Images {
    /// The images that run on a cluster: (name in relatedImages, pull specification).
    pub fn running(&self) -> [(&'static str, &str); 3] {
        [
            ("operator", &self.operator),
            ("controller", &self.controller),
            ("proxy", &self.proxy),
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
