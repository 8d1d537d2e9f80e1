//! What Red Hat's certification and this project want of an image.
//!
//! Pure. The names of the checks are those of openshift-preflight (`internal/policy/container`, 2026-08), which needs a registry and
//! cannot run here. Not checked: `BasedOnUbi` (these images have no base; another `BASE` of the Containerfile may be UBI),
//! `HasUniqueTag` and `HasModifiedFiles` (of a registry and of rpm).

use std::collections::{BTreeMap, BTreeSet};

/// Size of a layer's content in bytes, unpacked.
const MIB: u64 = 1024 * 1024;

/// An image as it is in an archive.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Such as `proxy`.
    pub name: String,
    /// Labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// User of its configuration.
    pub user: String,
    /// Number of layers.
    pub layers: usize,
    /// Files with their sizes in bytes, without a leading slash; links and folders, too.
    pub files: BTreeMap<String, u64>,
    /// Those that are symbolic links.
    pub links: BTreeSet<String>,
}

/// Labels of `HasRequiredLabel`.
const REQUIRED: [&str; 7] = [
    "name",
    "vendor",
    "version",
    "release",
    "summary",
    "description",
    "maintainer",
];
/// Labels of `HasNoProhibitedLabels`, which must not claim to be of Red Hat.
const TRADEMARK: [&str; 3] = ["name", "vendor", "maintainer"];
/// Labels of <https://specs.opencontainers.org/image-spec/annotations/>.
const OPEN_CONTAINERS: [&str; 8] = [
    "title",
    "description",
    "vendor",
    "licenses",
    "source",
    "documentation",
    "version",
    "revision",
];
/// `LayerCountAcceptable`.
const MAX_LAYERS: usize = 40;
/// Packages of `HasNoProhibitedPackages`, by their beginnings, as Debian and Red Hat name them.
const PROHIBITED: [&str; 5] = ["kernel", "linux-image", "grub", "linux-firmware", "kpatch"];
/// Shells, which only the tools need.
const SHELLS: [&str; 6] = [
    "bin/sh",
    "bin/bash",
    "bin/dash",
    "usr/bin/sh",
    "usr/bin/bash",
    "usr/bin/dash",
];

impl Image {
    /// Returns what is wrong with it, a sentence each.
    pub fn findings(&self) -> Vec<String> {
        let checks = [
            self.license(),
            self.labels(),
            self.trademark(),
            self.root(),
            self.many_layers(),
            self.packages(),
            self.shell(),
            self.size(),
        ];
        let found = checks.into_iter().flatten();
        found
            .map(|finding| format!("image {}: {finding}", self.name))
            .collect()
    }

    /// Names of Debian's packages.
    pub fn package_names(&self) -> BTreeSet<&str> {
        let names = self.files.keys();
        names
            .filter_map(|file| file.strip_prefix("var/lib/dpkg/status.d/"))
            .filter(|name| !name.is_empty())
            .collect()
    }

    fn license(&self) -> Vec<String> {
        let mut found = Vec::new();
        for file in ["licenses/LICENSE", "licenses/THIRD-PARTY-NOTICES"] {
            if self.files.get(file).is_none_or(|size| *size == 0) {
                found.push(format!("HasLicense: /{file} is missing or empty"));
            }
        }
        for package in self.package_names() {
            let copyright = format!("usr/share/doc/{package}/copyright");
            // Binary packages of one source may share a folder: its name is that of a link.
            let folder = format!("usr/share/doc/{package}");
            let is_there = |file: &String| self.files.contains_key(file);
            if !is_there(&copyright) && !self.links.contains(&folder) {
                found.push(format!("HasLicense: package {package} has no copyright file"));
            }
        }
        found
    }

    fn labels(&self) -> Vec<String> {
        let open_containers = OPEN_CONTAINERS.map(|name| format!("org.opencontainers.image.{name}"));
        let wanted = REQUIRED
            .into_iter()
            .chain(open_containers.iter().map(String::as_str));
        let is_missing = |name: &&str| self.labels.get(*name).is_none_or(String::is_empty);
        wanted
            .filter(is_missing)
            .map(|name| format!("HasRequiredLabel: label {name} is missing"))
            .collect()
    }

    fn trademark(&self) -> Vec<String> {
        let claims = |name: &&str| {
            let text = self
                .labels
                .get(*name)
                .map(|text| text.to_lowercase().replace([' ', '-'], ""));
            text.is_some_and(|text| text.starts_with("redhat"))
        };
        let labels = TRADEMARK.into_iter().filter(claims);
        labels
            .map(|name| format!("HasNoProhibitedLabels: label {name} begins with Red Hat's name"))
            .collect()
    }

    /// The proxy needs root, for which Red Hat's portal has an exception.
    fn root(&self) -> Vec<String> {
        let user = self.user.split(':').next().unwrap_or_default();
        let is_root = ["", "0", "root"].contains(&user);
        if is_root && self.name != "proxy" {
            return vec![format!("RunAsNonRoot: user is {:?}", self.user)];
        }
        Vec::new()
    }

    fn many_layers(&self) -> Vec<String> {
        let is_acceptable = (1..=MAX_LAYERS).contains(&self.layers);
        let finding = format!(
            "LayerCountAcceptable: {} layers, not 1 to {MAX_LAYERS}",
            self.layers
        );
        (!is_acceptable).then_some(finding).into_iter().collect()
    }

    fn packages(&self) -> Vec<String> {
        let is_prohibited = |name: &&str| PROHIBITED.iter().any(|beginning| name.starts_with(beginning));
        let names = self.package_names().into_iter().filter(is_prohibited);
        names
            .map(|name| format!("HasNoProhibitedPackages: package {name}"))
            .collect()
    }

    fn shell(&self) -> Vec<String> {
        let has_shell = |file: &&str| self.files.contains_key(*file) && self.name != "tools";
        let shells = SHELLS.into_iter().filter(has_shell);
        shells.map(|file| format!("it has the shell /{file}")).collect()
    }

    fn size(&self) -> Vec<String> {
        let limit = match self.name.as_str() {
            "proxy" | "tools" => 60,
            _ => 30,
        };
        let size = self.files.values().sum::<u64>().div_ceil(MIB);
        let finding = format!("it has {size} MiB, more than {limit}");
        (size > limit).then_some(finding).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn good() -> Image {
        let labels = REQUIRED.map(str::to_owned);
        let open_containers = OPEN_CONTAINERS.map(|name| format!("org.opencontainers.image.{name}"));
        let labels = labels.into_iter().chain(open_containers);
        let files = [
            "licenses/LICENSE",
            "licenses/THIRD-PARTY-NOTICES",
            "usr/bin/multus-service-operator",
            "var/lib/dpkg/status.d/libc6",
            "usr/share/doc/libc6/copyright",
        ];
        Image {
            name: "operator".to_owned(),
            labels: labels.map(|label| (label, "multus-service".to_owned())).collect(),
            user: "65532:65532".to_owned(),
            layers: 3,
            files: files.map(|file| (file.to_owned(), MIB)).into(),
            links: BTreeSet::new(),
        }
    }

    #[test]
    fn a_good_image_has_no_findings() {
        assert_eq!(good().findings(), Vec::<String>::new());
        let proxy = Image {
            name: "proxy".to_owned(),
            user: "0:0".to_owned(),
            ..good()
        };
        assert_eq!(proxy.findings(), Vec::<String>::new());
    }

    type Spoil = fn(&mut Image);

    #[rstest]
    #[case::no_license(|image: &mut Image| _ = image.files.remove("licenses/LICENSE"), "HasLicense: /licenses/LICENSE")]
    #[case::empty_notices(|image: &mut Image| _ = image.files.insert("licenses/THIRD-PARTY-NOTICES".to_owned(), 0), "HasLicense: /licenses/THIRD")]
    #[case::no_copyright(|image: &mut Image| _ = image.files.remove("usr/share/doc/libc6/copyright"), "HasLicense: package libc6")]
    #[case::folder_without_copyright(|image: &mut Image| { image.files.remove("usr/share/doc/libc6/copyright"); image.files.insert("usr/share/doc/libc6".to_owned(), 0); }, "HasLicense: package libc6")]
    #[case::no_summary(|image: &mut Image| _ = image.labels.remove("summary"), "HasRequiredLabel: label summary")]
    #[case::empty_release(|image: &mut Image| _ = image.labels.insert("release".to_owned(), String::new()), "HasRequiredLabel: label release")]
    #[case::no_revision(|image: &mut Image| _ = image.labels.remove("org.opencontainers.image.revision"), "revision is missing")]
    #[case::trademark(|image: &mut Image| _ = image.labels.insert("name".to_owned(), "Red Hat multus-service".to_owned()), "HasNoProhibitedLabels: label name")]
    #[case::root(|image: &mut Image| image.user = "0:0".to_owned(), "RunAsNonRoot")]
    #[case::no_user(|image: &mut Image| image.user.clear(), "RunAsNonRoot")]
    #[case::layers(|image: &mut Image| image.layers = 41, "LayerCountAcceptable: 41")]
    #[case::kernel(|image: &mut Image| _ = image.files.insert("var/lib/dpkg/status.d/linux-image-6.1".to_owned(), 1), "HasNoProhibitedPackages")]
    #[case::shell(|image: &mut Image| _ = image.files.insert("bin/sh".to_owned(), 1), "it has the shell /bin/sh")]
    #[case::size(|image: &mut Image| _ = image.files.insert("usr/bin/large".to_owned(), 40 * MIB), "more than 30")]
    fn each_check_finds_a_broken_image(#[case] spoil: Spoil, #[case] finding: &str) {
        let mut image = good();
        spoil(&mut image);
        let findings = image.findings();
        assert!(
            findings.iter().any(|found| found.contains(finding)),
            "{findings:?}"
        );
    }
}
