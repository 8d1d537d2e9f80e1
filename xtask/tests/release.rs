//! `make release` on a copy of the checkout: what it makes fits together by digest, and what it must reject.

use anyhow::{Context as _, Result, anyhow, ensure};
use olm::project::{Overrides, Project};
use olm::{Bundle, Catalog, Source, catalog, items, text};
use semver::Version;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use testbed::{command, wait};
use xtask::images::{Profile, inspect};
use xtask::release::{Maker, Options};

#[path = "release/images.rs"]
mod images;
#[path = "release/plugin.rs"]
mod plugin;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The files of this checkout that git knows, as a repository of its own that is ready for the release.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn new() -> Result<Self> {
        let copy = Self {
            folder: tempfile::tempdir()?,
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let script = "git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -c | tar -x -C \"$0\"";
        command::output(
            Command::new("bash")
                .args(["-c", script])
                .arg(copy.root())
                .current_dir(root),
        )?;
        copy.edit(
            "CHANGELOG.md",
            &format!("## [{VERSION}] - Unreleased"),
            &format!("## [{VERSION}] - 2026-11-26"),
        )?;
        copy.edit("project.yaml", "reviewers: []", "reviewers: [octocat]")?;
        copy.git(&["init", "--quiet"])?;
        copy.commit()?;
        Ok(copy)
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn git(&self, args: &[&str]) -> Result<String> {
        let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
        command::output(Command::new("git").args(who).args(args).current_dir(self.root()))
    }

    fn commit(&self) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "All of it"])?;
        Ok(())
    }

    fn commit_if_changed(&self) -> Result<()> {
        if self.git(&["status", "--porcelain"])?.is_empty() {
            return Ok(());
        }
        self.commit()
    }

    /// Puts a text in the place of another, which may be there already.
    fn edit(&self, file: &str, old: &str, new: &str) -> Result<()> {
        let path = self.root().join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(old) || text.contains(new), "{file} has no {old:?}");
        Ok(fs::write(path, text.replace(old, new))?)
    }

    fn options(&self) -> Options {
        Options {
            out: self.root().join("dist/test"),
            // Optimized ones take minutes, and prove nothing more here.
            profile: Profile::Dev,
            allow_dirty: false,
            arm64: images::is_long(),
            mirrors: None,
            cyclonedx: PathBuf::from("cargo-cyclonedx"),
            identity: Overrides::default(),
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.root().join(file)).with_context(|| format!("cannot read {file}"))
    }
}

/// `make` installs it once, beside the cluster's programs.
fn cyclonedx() -> Result<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = command::run("make", &["--no-print-directory", "-C", root, "cyclonedx"])?;
    Ok(PathBuf::from(
        text.lines().last().context("make names no cargo-cyclonedx")?,
    ))
}

#[test]
#[ignore = "builds images: make test-e2e"]
fn a1_a_release_fits_together_by_digest() -> Result<()> {
    let copy = Copy::new()?;
    let options = Options {
        cyclonedx: cyclonedx()?,
        ..copy.options()
    };
    Maker::new(copy.root(), Version::parse(VERSION)?, options)?.make(&|line| eprintln!("{line}"))?;
    let out = copy.root().join("dist/test");

    let bundle = Bundle::read(&copy.root().join("bundle"))?;
    let images = images(&out, &Project::read(copy.root())?.registry)?;
    the_binaries_know_the_commit(&copy, &out)?;
    let [operator, controller, proxy, tools, of_the_bundle] = &images;
    the_bundle_names(&bundle, [operator, controller, proxy, tools])?;
    the_catalog_names(&copy, &bundle, of_the_bundle)?;
    install_yaml_names(&out, [operator, controller, proxy, tools])?;
    images::follow_the_policy(&out)?;
    plugin::is_static(&out)?;
    plugin::is_installed_by_krew(&out)?;
    the_pull_request_has(&out, &bundle)?;
    let sums = command::output(
        Command::new("sha256sum")
            .args(["--check", "--quiet", "SHA256SUMS"])
            .current_dir(&out),
    )?;
    ensure!(sums.is_empty(), "{sums}");
    let listed = fs::read_to_string(out.join("SHA256SUMS"))?;
    for file in [
        "images/proxy.oci.tar",
        "install.yaml",
        "catalog.yaml",
        "bundle.tar.gz",
        "community-operators-prod/operators/multus-service-operator/ci.yaml",
        "community-operators-prod/operators/multus-service-operator/catalog-templates/basic.yaml",
        &format!("multus-service-{VERSION}.tgz"),
    ] {
        ensure!(
            listed.contains(&format!("./{file}\n")),
            "SHA256SUMS lacks {file}: {listed}"
        );
    }
    for name in ["operator", "controller", "proxy", "tools"] {
        let sbom: Value =
            serde_json::from_str(&fs::read_to_string(out.join(format!("sbom/{name}.cdx.json")))?)?;
        let parts = items(&sbom, "/components").count();
        ensure!(
            sbom["bomFormat"] == "CycloneDX" && parts > 50,
            "{name} is made of {parts} parts"
        );
    }
    // All that is changed is what is committed as the release.
    let changed = copy.git(&["status", "--porcelain"])?;
    let expected = [
        "olm/release.yaml",
        "olm/catalog/",
        "bundle/",
        "charts/",
        "config/manager/",
    ];
    let others: Vec<_> = changed
        .lines()
        .filter(|line| !expected.iter().any(|path| line.contains(path)))
        .collect();
    ensure!(others.is_empty() && !changed.is_empty(), "{changed}");
    a_reviewer_would_reject_a_tag(&copy)
}

fn a_reviewer_would_reject_a_tag(copy: &Copy) -> Result<()> {
    xtask::release::check(copy.root())?;
    let csv = "bundle/manifests/multus-service-operator.clusterserviceversion.yaml";
    let by_digest = copy.read(csv)?;
    let digest = by_digest.split("operator@sha256:").nth(1).context("no digest")?;
    let digest = digest.get(..64).context("a short digest")?;
    copy.edit(csv, &format!("operator@sha256:{digest}"), "operator:v0.1.0")?;
    let error = xtask::release::check(copy.root()).err().context("a tag passes")?;
    ensure!(error.to_string().contains("is not pinned by digest"), "{error:#}");
    Ok(())
}

/// The pull specifications of operator, controller, proxy, tools and bundle, by what is in the archives.
fn images(out: &Path, registry: &str) -> Result<[String; 5]> {
    let mut found = Vec::new();
    for name in ["operator", "controller", "proxy", "tools", "bundle"] {
        let archive = out.join(format!("images/{name}.oci.tar")).display().to_string();
        let index: Value = serde_json::from_str(&command::run("tar", &["-xOf", &archive, "index.json"])?)?;
        let digest = text(&index, "/manifests/0/digest");
        ensure!(
            digest.starts_with("sha256:") && digest.len() == 71,
            "{name}: {index:#}"
        );
        found.push(format!("{registry}/{name}@{digest}"));
    }
    found
        .try_into()
        .map_err(|found| anyhow!("not five images: {found:?}"))
}

/// Each binary, out of its image, names its commit in its first log line, and in `multus_service_build_info`.
fn the_binaries_know_the_commit(copy: &Copy, out: &Path) -> Result<()> {
    let revision = copy.git(&["rev-parse", "HEAD"])?;
    let scratch = tempfile::tempdir()?;
    for name in ["operator", "controller", "proxy"] {
        let archive = out.join(format!("images/{name}.oci.tar"));
        let binary = format!("usr/bin/multus-service-{name}");
        inspect::extract(&archive, "amd64", &binary, scratch.path())?;
        let line = started(&scratch.path().join(binary), scratch.path())?;
        let commit = format!("commit=\"{}\"", revision.trim());
        ensure!(line.contains(&commit), "{name}: {line}");
    }
    Ok(())
}

/// Starts a binary without a cluster; its line `Started`.
fn started(binary: &Path, scratch: &Path) -> Result<String> {
    let kubeconfig = scratch.join("kubeconfig");
    let away = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "away",
        "clusters": [{ "name": "away", "cluster": { "server": "https://127.0.0.1:1" } }],
        "users": [{ "name": "away", "user": {} }],
        "contexts": [{ "name": "away", "context": { "cluster": "away", "user": "away" } }],
    });
    fs::write(&kubeconfig, away.to_string())?;
    let log = scratch.join("log");
    let mut process = Command::new(binary)
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args([
            "--health-probe-bind-address=127.0.0.1:0",
            "--metrics-bind-address=127.0.0.1:0",
        ])
        .envs([("NODE_NAME", "a"), ("NO_COLOR", "1")])
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::options().append(true).open(&log)?)
        .spawn()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let line = wait::value(Duration::from_secs(30), "the line Started", || {
        let text = fs::read_to_string(&log)?;
        Ok(text
            .lines()
            .find(|line| line.contains("Started"))
            .map(str::to_owned))
    });
    process.kill()?;
    process.wait()?;
    line.map_err(command::with_tail(&log, 10))
}

fn the_bundle_names(bundle: &Bundle, [operator, controller, proxy, tools]: [&String; 4]) -> Result<()> {
    let csv = bundle.csv()?;
    let related: Vec<_> = items(&csv, "/spec/relatedImages")
        .map(|image| text(image, "/image"))
        .collect();
    ensure!(related == [operator, controller, proxy, tools], "{related:#?}");
    ensure!(
        text(&csv, "/metadata/annotations/containerImage") == operator,
        "containerImage is another"
    );
    let container =
        &csv["spec"]["install"]["spec"]["deployments"][0]["spec"]["template"]["spec"]["containers"][0];
    let variable = |name: &str| {
        items(container, "/env")
            .find(|variable| variable["name"] == name)
            .map(|variable| text(variable, "/value"))
    };
    ensure!(text(container, "/image") == operator, "{container:#}");
    ensure!(
        variable("RELATED_IMAGE_CONTROLLER") == Some(controller),
        "{container:#}"
    );
    ensure!(variable("RELATED_IMAGE_PROXY") == Some(proxy), "{container:#}");
    ensure!(variable("RELATED_IMAGE_TOOLS") == Some(tools), "{container:#}");
    let must_gather = "/metadata/annotations/operators.openshift.io~1must-gather-image";
    ensure!(text(&csv, must_gather) == tools, "{must_gather} is another image");
    ensure!(variable("OPERATOR_VERSION") == Some(VERSION), "{container:#}");
    Ok(())
}

fn the_catalog_names(copy: &Copy, bundle: &Bundle, image: &str) -> Result<()> {
    let file = copy.read("olm/catalog/multus-service-operator/catalog.yaml")?;
    ensure!(
        file == copy.read("dist/test/catalog.yaml")?,
        "dist has another catalog"
    );
    let blobs = Catalog::parse(&file)?.blobs;
    let ours = blobs.iter().find(|blob| {
        blob["schema"] == "olm.bundle"
            && blob["name"] == olm::csv_name(&Version::parse(VERSION).unwrap_or(Version::new(0, 0, 0)))
    });
    let ours = ours.context("the catalog lacks the release")?;
    ensure!(*ours == catalog::entry(bundle, Some(image))?, "{ours:#}");
    // And so do the files that everything is made of again.
    let source = Source::read(copy.root())?;
    ensure!(
        source.release.images.bundle.as_deref() == Some(image),
        "{:?}",
        source.release
    );
    ensure!(
        Bundle::render(&source, olm::Platform::Openshift)? == *bundle,
        "bundle/ is not what `make bundle` makes"
    );
    Ok(())
}

/// The bundle without its Dockerfile, and where the pipeline adds it.
fn the_pull_request_has(out: &Path, bundle: &Bundle) -> Result<()> {
    let operator = out.join("community-operators-prod/operators/multus-service-operator");
    let mut version = Bundle::read(&operator.join(VERSION))?;
    let config = version.files.remove("release-config.yaml");
    let config: Value = serde_saphyr::from_str(&config.context("no release-config.yaml")?)?;
    ensure!(
        config["catalog_templates"][0]["channels"][0] == "candidate-v0",
        "{config:#}"
    );
    let mut expected = bundle.clone();
    expected.files.remove("bundle.Dockerfile");
    ensure!(version == expected, "the pull request has another bundle");
    let ci: Value = serde_saphyr::from_str(&fs::read_to_string(operator.join("ci.yaml"))?)?;
    ensure!(ci["reviewers"] == json!(["octocat"]), "{ci:#}");
    Ok(())
}

fn install_yaml_names(out: &Path, images: [&String; 4]) -> Result<()> {
    let yaml = fs::read_to_string(out.join("install.yaml"))?;
    for image in images {
        ensure!(yaml.contains(image.as_str()), "install.yaml lacks {image}");
    }
    let by_tag: Vec<_> = yaml
        .lines()
        .filter(|line| line.contains("quay.io/") && !line.contains("@sha256:"))
        .collect();
    ensure!(by_tag.is_empty(), "{by_tag:#?}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml)?;
    ensure!(objects.len() > 10, "only {} objects", objects.len());
    Ok(())
}

type Spoil = fn(&Copy) -> Result<()>;

#[test]
#[ignore = "needs git: make test-e2e"]
fn a2_a_checkout_that_is_not_ready_is_rejected() -> Result<()> {
    let cases: [(&str, &str, Spoil); 8] = [
        ("9.9.9", "the binaries are of version", |_| Ok(())),
        (VERSION, "CHANGELOG.md has no section", |copy| {
            copy.edit("CHANGELOG.md", &format!("## [{VERSION}] "), "## [Unreleased] ")
        }),
        (VERSION, "write the date", |copy| {
            copy.edit("CHANGELOG.md", "- 2026-11-26", "- Unreleased")
        }),
        (
            VERSION,
            "no channel of olm/catalog-template.yaml has an entry",
            |copy| {
                copy.edit(
                    "olm/catalog-template.yaml",
                    &format!("name: multus-service-operator.v{VERSION}\n"),
                    "name: multus-service-operator.v9.9.9\n",
                )
            },
        ),
        (VERSION, "reviewers is empty", |copy| {
            copy.edit("project.yaml", "reviewers: [octocat]", "reviewers: []")
        }),
        (VERSION, "\"todo\" is no GitHub account", |copy| {
            copy.edit("project.yaml", "reviewers: [octocat]", "reviewers: [todo]")
        }),
        (VERSION, "is not empty and holds no release", |copy| {
            fs::create_dir_all(copy.root().join("dist/test"))?;
            Ok(fs::write(copy.root().join("dist/test/letter"), "")?)
        }),
        (VERSION, "commit these first", |copy| {
            Ok(fs::write(copy.root().join("new.txt"), "")?)
        }),
    ];
    for (version, words, spoil) in cases {
        let copy = Copy::new()?;
        spoil(&copy)?;
        if words != "commit these first" {
            copy.commit_if_changed()?;
        }
        let error = Maker::new(copy.root(), Version::parse(version)?, copy.options());
        let text = error.err().context(words)?.to_string();
        ensure!(text.contains(words), "expected {words:?}: {text}");
    }
    let copy = Copy::new()?;
    Maker::new(copy.root(), Version::parse(VERSION)?, copy.options())?;
    a_real_release_needs_a_real_identity(&copy)?;
    // A trial needs no reviewers.
    copy.edit("project.yaml", "reviewers: [octocat]", "reviewers: []")?;
    let trial = Options {
        allow_dirty: true,
        ..copy.options()
    };
    Maker::new(copy.root(), Version::parse(VERSION)?, trial)?;
    Ok(())
}

fn a_real_release_needs_a_real_identity(copy: &Copy) -> Result<()> {
    let options = |identity| Options {
        profile: Profile::Release,
        identity,
        ..copy.options()
    };
    let maker = |identity| Maker::new(copy.root(), Version::parse(VERSION)?, options(identity));
    let named = Overrides {
        email: Some("security@acme.io".to_owned()),
        reviewers: vec!["alice".to_owned()],
        ..Overrides::default()
    };
    maker(named.clone())?;
    for (identity, words) in [
        (
            Overrides {
                email: Some("a@example.com".to_owned()),
                ..named.clone()
            },
            "project.yaml has the placeholder email: a@example.com; write an address",
        ),
        (
            Overrides {
                registry: Some("localhost:5000/x".to_owned()),
                ..named
            },
            "project.yaml has the placeholder registry: localhost:5000/x; write a registry",
        ),
    ] {
        let text = maker(identity).err().context(words)?.to_string();
        ensure!(text.contains(words), "expected {words:?}: {text}");
    }
    Ok(())
}
