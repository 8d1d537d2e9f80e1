//! Makes a release: images, SBOMs, `install.yaml`, chart, bundle and catalog, with every image by digest.
//!
//! Writes: the release's folder; in the checkout `olm/release.yaml`, `bundle/`, `olm/catalog`, `charts/` and the tags in `config/manager`, which are
//! committed as the release.

use crate::images::release::{self, Archived, Labels};
use crate::images::{Profile, product};
use crate::{checkout, plugin};
use anyhow::{Context as _, Result, ensure};
use olm::Platform;
use olm::community::PullRequest;
use olm::project::{self, Overrides, Project};
use olm::release::Images;
use olm::{Bundle, Catalog, Chart, Release, Source, chart};
use semver::Version;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::images::Mirrors;
use testbed::{command, tools};

mod preflight;

/// Options of a release.
#[derive(Clone, Debug)]
pub struct Options {
    /// The release's folder; what a release left in it is removed.
    pub out: PathBuf,
    /// Build profile of the binaries; [`Profile::Dev`] is for trials.
    pub profile: Profile,
    /// Allows files to differ from the commit that the images name, and project.yaml to have no reviewers.
    pub allow_dirty: bool,
    /// Makes arm64's images and plugin.
    pub arm64: bool,
    /// Mirrors of Debian with the packages of the images. `None`: those of the cache, for tests.
    pub mirrors: Option<Mirrors>,
    /// The program `cargo-cyclonedx`.
    pub cyclonedx: PathBuf,
    /// Replacements in `project.yaml` and in all files that agree with it.
    pub identity: Overrides,
}

impl Options {
    /// Returns true when the release is not to be published.
    pub fn is_trial(&self) -> bool {
        self.allow_dirty || self.profile == Profile::Dev
    }
}

/// A release in the making.
#[derive(Debug)]
pub struct Maker {
    root: PathBuf,
    options: Options,
    labels: Labels,
    version: Version,
}

impl Maker {
    /// Prepares a release of the checkout at `root`. Rejects a version that the checkout is not ready for.
    pub fn new(root: &Path, version: Version, options: Options) -> Result<Self> {
        preflight::check(root, &version, &options)?;
        let git = |args: &[&str]| command::output(Command::new("git").args(args).current_dir(root));
        let labels = Labels {
            version: version.to_string(),
            revision: git(&["rev-parse", "HEAD"])?.trim().to_owned(),
            created: git(&["log", "-1", "--format=%cI"])?
                .trim()
                .parse::<chrono::DateTime<chrono::FixedOffset>>()?
                .to_utc(),
        };
        if options.out.exists() {
            fs::remove_dir_all(&options.out)?;
        }
        fs::create_dir_all(options.out.join("images"))?;
        fs::create_dir_all(options.out.join("sbom"))?;
        Ok(Self {
            root: root.to_owned(),
            options,
            labels,
            version,
        })
    }

    /// Makes everything.
    pub fn make(&self, say: &dyn Fn(&str)) -> Result<()> {
        let project = Project::read(&self.root)?;
        let new = project.with(&self.options.identity);
        if new != project {
            project::rewrite(&self.root, &project, &new)?;
            ensure!(
                self.options.is_trial(),
                "the identity is replaced in the checkout: commit it and make the release again, so that its images name a commit that has it"
            );
            say("identity: replaced in the checkout");
        }
        let folder = self.options.out.join("images");
        let architectures = self.architectures();
        let build = release::Build {
            profile: self.options.profile,
            labels: &self.labels,
            mirrors: self.options.mirrors.as_ref(),
            architectures: &architectures,
        };
        let images = build.product(&folder, say)?;
        for image in &images {
            say(&format!("{}: {}", image.name, image.digest));
        }
        let mut source = Source::read(&self.root)?;
        source.release = self.release(&images, architectures, &new)?;
        let bundle = Bundle::render(&source, Platform::Openshift)?;
        bundle.write(&self.root.join("bundle"))?;
        let image = release::bundle(&self.root.join("bundle"), &self.labels, &folder)?;
        say(&format!("bundle: {}", image.digest));
        source.release.images.bundle = Some(pull_spec(&new, &image));
        self.write_release(&source.release)?;
        let catalog = Catalog::render(&source)?.yaml();
        fs::write(
            self.root.join("olm/catalog/multus-service-operator/catalog.yaml"),
            &catalog,
        )?;
        let packaged = chart(&self.root, &source, &self.options.out)?;
        say(&format!("chart: {}", packaged.display()));
        check(&self.root)?;
        fs::write(self.options.out.join("catalog.yaml"), catalog)?;
        let request = PullRequest::render(&source, Platform::Openshift)?;
        request.write(&source, &self.options.out.join("community-operators-prod"))?;
        self.bundle_archive()?;
        self.install_yaml(&bundle)?;
        say("install.yaml, bundle, catalog, pull request to community-operators-prod: written");
        self.plugin(&new, say)?;
        self.sboms()?;
        say("SBOMs: written");
        self.checksums()
    }

    fn architectures(&self) -> Vec<String> {
        let all = [("amd64", true), ("arm64", self.options.arm64)];
        let made = all.into_iter().filter(|(_, is_made)| *is_made);
        made.map(|(name, _)| name.to_owned()).collect()
    }

    /// Equal bundles give equal archives.
    fn bundle_archive(&self) -> Result<()> {
        let mut tar = command::reproducible_tar(self.labels.created.timestamp());
        tar.arg("-C").arg(&self.root).args(["-I", "gzip -n", "-cf"]);
        command::output(tar.arg(self.options.out.join("bundle.tar.gz")).arg("bundle"))?;
        Ok(())
    }

    fn release(&self, images: &[Archived], architectures: Vec<String>, project: &Project) -> Result<Release> {
        let of = |name: &str| -> Result<String> {
            let found = images.iter().find(|image| image.name == name);
            Ok(pull_spec(
                project,
                found.with_context(|| format!("no image of {name}"))?,
            ))
        };
        Ok(Release {
            version: self.version.clone(),
            created: self.labels.created,
            architectures,
            images: Images {
                operator: of("operator")?,
                controller: of("controller")?,
                proxy: of("proxy")?,
                tools: of("tools")?,
                bundle: None,
            },
        })
    }

    /// Digests for the bundle, tags for who applies `config/default`.
    fn write_release(&self, release: &Release) -> Result<()> {
        fs::write(self.root.join("olm/release.yaml"), release.yaml())?;
        let deployment = self.root.join("config/manager/deployment.yaml");
        let tagged = release.tagged(&fs::read_to_string(&deployment)?);
        fs::write(deployment, tagged)?;
        Ok(())
    }

    fn install_yaml(&self, bundle: &Bundle) -> Result<()> {
        let objects = install_objects(&self.root, bundle)?;
        let documents = objects
            .iter()
            .map(serde_saphyr::to_string)
            .collect::<Result<Vec<_>, _>>()?;
        fs::write(self.options.out.join("install.yaml"), documents.join("---\n"))?;
        Ok(())
    }

    /// The kubectl plugin of each platform, and the manifest of krew.
    fn plugin(&self, project: &Project, say: &dyn Fn(&str)) -> Result<()> {
        let folder = self.options.out.join("plugin");
        fs::create_dir_all(&folder)?;
        let mut archives = Vec::new();
        for platform in &plugin::PLATFORMS {
            if platform.arch == "arm64" && !self.options.arm64 {
                continue;
            }
            let program = platform.build(self.options.profile, &self.labels.revision, say)?;
            let time = self.labels.created.timestamp();
            archives.push(platform.archive(&program, &self.labels.version, time, &folder)?);
        }
        let repository = &project.repository;
        let url = format!("{repository}/releases/download/v{}", self.version);
        let manifest = plugin::manifest(&self.labels.version, repository, &url, &archives);
        let file = folder.join(format!("{}.yaml", plugin::NAME));
        fs::write(file, serde_saphyr::to_string(&manifest)?)?;
        Ok(())
    }

    fn sboms(&self) -> Result<()> {
        for product in &product::PRODUCTS {
            let manifest = self.root.join(product.package).join("Cargo.toml");
            let manifest = manifest.display().to_string();
            let file = format!("{}.cdx", product.image);
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
            command::output(
                Command::new(&self.options.cyclonedx)
                    .args(args)
                    .current_dir(&self.root),
            )?;
            // It writes beside every manifest of the workspace; the other members are parts of this one's list.
            fs::rename(
                self.root.join(product.package).join(format!("{file}.json")),
                self.options.out.join("sbom").join(format!("{file}.json")),
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
        command::output(
            Command::new("sh")
                .args(["-c", script])
                .current_dir(&self.options.out),
        )?;
        Ok(())
    }
}

/// Writes `charts` of the checkout at `root`, and packages the chart into `out`. Returns the archive.
pub fn chart(root: &Path, source: &Source, out: &Path) -> Result<PathBuf> {
    let charts = root.join("charts");
    Chart::render(source)?.write(&charts)?;
    let helm = tools::ensure(&[&tools::HELM], &|_| {})?.main(&tools::HELM)?;
    let mut package = Command::new(helm);
    package.arg("package").arg(charts.join(chart::NAME));
    command::output(package.arg("--destination").arg(out))?;
    fs::copy(
        charts.join("artifacthub-repo.yml"),
        out.join("artifacthub-repo.yml"),
    )?;
    Ok(out.join(format!("{}-{}.tgz", chart::NAME, source.release.version)))
}

/// Checks bundle and catalog of the checkout at `root` against the requirements of the catalogs, which are tests of `olm`.
pub fn check(root: &Path) -> Result<()> {
    let mut cargo = product::cargo();
    cargo.args([
        "test",
        "--quiet",
        "--locked",
        "--workspace",
        "--test",
        "agreement",
    ]);
    cargo
        .args(["--", "committed_"])
        .env("MULTUS_SERVICE_CHECKOUT", root.canonicalize()?);
    let output = cargo.current_dir(checkout()).output()?;
    ensure!(
        output.status.success(),
        "a reviewer would reject bundle or catalog:\n{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Returns the content of `install.yaml`: the objects that `kubectl apply -k config/default` of the checkout at `root` applies, with the bundle's Deployment,
/// whose images are by digest.
pub fn install_objects(root: &Path, bundle: &Bundle) -> Result<Vec<Value>> {
    let kubectl = tools::ensure(&[&tools::KUBECTL], &|_| {})?.main(&tools::KUBECTL)?;
    let folder = root.join("config/default").display().to_string();
    let yaml = command::run(kubectl, &["kustomize", &folder])?;
    let csv = bundle.csv()?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&yaml)?;
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            object["spec"] = csv["spec"]["install"]["spec"]["deployments"][0]["spec"].clone();
        }
    }
    Ok(objects)
}

fn pull_spec(project: &Project, image: &Archived) -> String {
    format!("{}/{}@{}", project.registry, image.name, image.digest)
}
