//! Makes a release: images, SBOMs, `install.yaml`, bundle and catalog, with every image by digest.
//!
//! Writes: the release's folder; in the checkout `olm/release.yaml`, `bundle/` and `olm/catalog`, which are committed as the release.

use crate::images::release::{self, Archived, Labels};
use crate::{command, tools};
use anyhow::{Context as _, Result, ensure};
use olm::bundle::Platform;
use olm::release::Images;
use olm::{Bundle, Catalog, Release, Source, checks, csv_name, graph};
use semver::Version;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REGISTRY: &str = "quay.io/multus-service";
/// The crates that are binaries of a release.
const BINARIES: [&str; 3] = ["operator", "controller", "proxy"];

/// A release in the making.
#[derive(Debug)]
pub struct Maker {
    root: PathBuf,
    out: PathBuf,
    labels: Labels,
    version: Version,
}

impl Maker {
    /// Of the checkout at `root`, into `out`. Refuses a version that the checkout is not ready for.
    pub fn new(root: &Path, out: &Path, version: Version) -> Result<Self> {
        let of_crates = Version::parse(env!("CARGO_PKG_VERSION"))?;
        let core = Version::new(version.major, version.minor, version.patch);
        ensure!(
            core == of_crates,
            "the binaries are of version {of_crates}, not {core}: set workspace.package.version in Cargo.toml"
        );
        let changelog = fs::read_to_string(root.join("CHANGELOG.md"))?;
        ensure!(
            changelog
                .lines()
                .any(|line| line.starts_with(&format!("## {core}"))),
            "CHANGELOG.md has no section \"## {core}\": rename \"Unreleased\""
        );
        let source = Source::read(root)?;
        let name = csv_name(&version);
        ensure!(
            graph::channels(&source.template)
                .iter()
                .any(|channel| channel.entry(&name).is_some()),
            "no channel of olm/catalog-template.yaml has an entry {name}"
        );
        let git = |args: &[&str]| command::output(Command::new("git").args(args).current_dir(root));
        let labels = Labels {
            version: version.to_string(),
            revision: git(&["rev-parse", "HEAD"])?.trim().to_owned(),
            created: git(&["log", "-1", "--format=%cI"])?
                .trim()
                .parse::<chrono::DateTime<chrono::FixedOffset>>()?
                .to_utc(),
        };
        fs::create_dir_all(out.join("images"))?;
        fs::create_dir_all(out.join("sbom"))?;
        Ok(Self {
            root: root.to_owned(),
            out: out.to_owned(),
            labels,
            version,
        })
    }

    /// Makes everything.
    pub fn make(&self, say: &dyn Fn(&str)) -> Result<()> {
        let folder = self.out.join("images");
        let images = release::product(&self.labels, &folder, say)?;
        for image in &images {
            say(&format!("{}: {}", image.name, image.digest));
        }
        let mut source = Source::read(&self.root)?;
        source.release = self.release(&images)?;
        let bundle = Bundle::render(&source, Platform::Openshift)?;
        let findings = checks::run(&bundle)?;
        ensure!(
            findings.is_empty(),
            "a reviewer would refuse the bundle: {findings:#?}"
        );
        bundle.write(&self.root.join("bundle"))?;
        let image = release::bundle(&self.root.join("bundle"), &self.labels, &folder)?;
        say(&format!("bundle: {}", image.digest));
        source.release.images.bundle = Some(pull_spec(&image));
        self.write_release(&source.release)?;
        let catalog = Catalog::render(&source)?.yaml();
        fs::write(
            self.root.join("olm/catalog/multus-service-operator/catalog.yaml"),
            &catalog,
        )?;
        fs::write(self.out.join("catalog.yaml"), catalog)?;
        command::run(
            "tar",
            &[
                "-C",
                &self.root.display().to_string(),
                "-czf",
                &self.file("bundle.tar.gz"),
                "bundle",
            ],
        )?;
        self.install_yaml(&bundle)?;
        say("install.yaml, bundle, catalog: written");
        self.sboms()?;
        say("SBOMs: written");
        self.checksums()
    }

    fn file(&self, name: &str) -> String {
        self.out.join(name).display().to_string()
    }

    fn release(&self, images: &[Archived]) -> Result<Release> {
        let of = |name: &str| -> Result<String> {
            let found = images.iter().find(|image| image.name == name);
            Ok(pull_spec(found.with_context(|| format!("no image of {name}"))?))
        };
        Ok(Release {
            version: self.version.clone(),
            created: self.labels.created,
            architectures: vec!["amd64".to_owned()],
            images: Images {
                operator: of("operator")?,
                controller: of("controller")?,
                proxy: of("proxy")?,
                bundle: None,
            },
        })
    }

    fn write_release(&self, release: &Release) -> Result<()> {
        const HEADER: &str = "# The release that bundle/ describes. `make release VERSION=...` writes it: the digests are those of the images it built.\n";
        fs::write(
            self.root.join("olm/release.yaml"),
            HEADER.to_owned() + &serde_saphyr::to_string(release)?,
        )?;
        Ok(())
    }

    /// What `kubectl apply -k config/default` applies, with the bundle's Deployment, whose images are by digest.
    fn install_yaml(&self, bundle: &Bundle) -> Result<()> {
        let kubectl = tools::ensure(&[&tools::KUBECTL], &|_| {})?.main(&tools::KUBECTL)?;
        let yaml = command::run(
            kubectl,
            &[
                "kustomize",
                &self.root.join("config/default").display().to_string(),
            ],
        )?;
        let csv = bundle.csv()?;
        let mut documents = Vec::new();
        for mut object in serde_saphyr::from_multiple::<Value>(&yaml)? {
            if object["kind"] == "Deployment" {
                object["spec"] = csv["spec"]["install"]["spec"]["deployments"][0]["spec"].clone();
            }
            documents.push(serde_saphyr::to_string(&object)?);
        }
        fs::write(self.out.join("install.yaml"), documents.join("---\n"))?;
        // What a bundle cannot carry.
        let policies: Vec<_> = documents
            .into_iter()
            .filter(|document| document.contains("kind: ValidatingAdmissionPolicy"))
            .collect();
        fs::write(self.out.join("admission-policies.yaml"), policies.join("---\n"))?;
        Ok(())
    }

    fn sboms(&self) -> Result<()> {
        for name in BINARIES {
            let manifest = self.root.join(name).join("Cargo.toml").display().to_string();
            let file = format!("{name}.cdx");
            let args = [
                "cyclonedx",
                "--format",
                "json",
                "--target",
                "x86_64-unknown-linux-gnu",
                "--override-filename",
                &file,
                "--manifest-path",
                &manifest,
            ];
            command::output(Command::new("cargo").args(args).current_dir(&self.root))?;
            // It writes beside every manifest of the workspace; the other members are parts of this one's list.
            fs::rename(
                self.root.join(name).join(format!("{file}.json")),
                self.out.join("sbom").join(format!("{file}.json")),
            )?;
            for member in fs::read_dir(&self.root)? {
                let stray = member?.path().join(format!("{file}.json"));
                if stray.exists() {
                    fs::remove_file(stray)?;
                }
            }
        }
        Ok(())
    }

    fn checksums(&self) -> Result<()> {
        let script = "find . -type f ! -name SHA256SUMS | sort | xargs sha256sum > SHA256SUMS";
        command::output(Command::new("sh").args(["-c", script]).current_dir(&self.out))?;
        Ok(())
    }
}

fn pull_spec(image: &Archived) -> String {
    format!("{REGISTRY}/{}@{}", image.name, image.digest)
}
