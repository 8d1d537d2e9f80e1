//! `olm`: writes `bundle/`, `olm/catalog`, `charts/` and the dashboards in `config/monitoring`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use olm::community::{PullRequest, promoted};
use olm::project::{self, Overrides, Project};
use olm::{Bundle, Catalog, Chart, Platform, Source, catalog, dashboard, installer};
use semver::Version;

#[derive(Parser, Debug)]
#[command(
    about = "Generates what the Operator Lifecycle Manager and Helm read",
    version
)]
struct Cli {
    /// Root of the checkout
    #[arg(long, default_value = ".")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Set the version of olm/release.yaml, config/manager and the example in config/default to one whose images are not built yet
    Plan {
        /// Version such as 0.2.0 or 0.2.0-rc.1; a channel of olm/catalog-template.yaml must contain it
        version: Version,
    },
    /// Write the bundle from config/ and olm/release.yaml
    Bundle {
        /// Version of the bundle, in place of that in olm/release.yaml
        #[arg(long)]
        version: Option<Version>,
        /// Platform on which the bundle is installed
        #[arg(long, value_enum, default_value = "openshift")]
        platform: Platform,
        /// Output directory; all other files in it are removed
        #[arg(long, default_value = "bundle")]
        out: PathBuf,
    },
    /// Write the catalog from olm/catalog-template.yaml and olm/released
    Catalog {
        /// Output file
        #[arg(long, default_value = "olm/catalog/multus-service-operator/catalog.yaml")]
        out: PathBuf,
    },
    /// Write the rights with which OLM v1 installs the bundle
    Installer {
        /// Output file
        #[arg(long, default_value = "config/olmv1/installer.yaml")]
        out: PathBuf,
    },
    /// Write the files of a pull request to a community catalog into a clone of it
    Community {
        /// openshift: redhat-openshift-ecosystem/community-operators-prod; kubernetes: k8s-operatorhub/community-operators
        #[arg(long, value_enum, default_value = "openshift")]
        platform: Platform,
        /// The clone
        #[arg(long)]
        out: PathBuf,
    },
    /// Give the channels of olm/catalog-template.yaml to a template of community-operators-prod: after a version was added to stable-v0
    Promote {
        /// catalog-templates/basic.yaml in the clone
        #[arg(long)]
        template: PathBuf,
    },
    /// Write the Helm chart from config/, olm/chart and olm/release.yaml
    Chart {
        /// Output directory; all other files in it are removed
        #[arg(long, default_value = "charts")]
        out: PathBuf,
    },
    /// Write the dashboards to config/monitoring
    Dashboard,
    /// Replace the identity of the project, in project.yaml and in all files that have it
    Identity(Overrides),
    /// Keep the release in olm/released/<version>: the bundle's entry of the catalog, and the CRD
    Keep,
}

fn main() -> Result<()> {
    let Cli { root, command } = Cli::parse();
    match command {
        Command::Plan { version } => plan(&root, &version)?,
        Command::Bundle {
            version,
            platform,
            out,
        } => {
            let mut source = Source::read(&root)?;
            if let Some(version) = version.filter(|version| *version != source.release.version) {
                source.release = source.release.planned(&version);
            }
            Bundle::render(&source, platform)?.write(&root.join(out))?;
        }
        Command::Catalog { out } => write(&root.join(out), &Catalog::render(&Source::read(&root)?)?.yaml())?,
        Command::Installer { out } => {
            let bundle = Bundle::render(&Source::read(&root)?, Platform::Openshift)?;
            write(&root.join(out), &installer::yaml(&bundle)?)?;
        }
        Command::Community { platform, out } => {
            let source = Source::read(&root)?;
            PullRequest::render(&source, platform)?.write(&source, &out)?;
        }
        Command::Promote { template } => {
            let theirs = std::fs::read_to_string(&template)
                .with_context(|| format!("failed to read {}", template.display()))?;
            let theirs =
                serde_saphyr::from_str(&theirs).with_context(|| format!("invalid {}", template.display()))?;
            write(&template, &promoted(&theirs, &Source::read(&root)?)?)?;
        }
        Command::Chart { out } => Chart::render(&Source::read(&root)?)?.write(&root.join(out))?,
        Command::Dashboard => {
            let (folder, rows) = (root.join("config/monitoring"), dashboard::rows());
            write(
                &folder.join("dashboard.json"),
                &format!("{:#}\n", dashboard::dashboard(&rows)),
            )?;
            write(
                &folder.join("console-dashboard.yaml"),
                &serde_saphyr::to_string(&dashboard::config_map(&rows))?,
            )?;
        }
        Command::Identity(overrides) => {
            let old = Project::read(&root)?;
            project::rewrite(&root, &old, &old.with(&overrides))?;
        }
        Command::Keep => {
            let source = Source::read(&root)?;
            let entry = catalog::keep(&source)?;
            let folder = root.join(format!("olm/released/{}", source.release.version));
            write(&folder.join("catalog.yaml"), &serde_saphyr::to_string(&entry)?)?;
            write(&folder.join("crd.yaml"), &source.crd_file)?;
        }
    }
    Ok(())
}

/// The current version is left unchanged: it may have digests.
fn plan(root: &Path, version: &Version) -> Result<()> {
    let mut source = Source::read(root)?;
    if *version == source.release.version {
        return Ok(());
    }
    let before = format!("v{}", source.release.version);
    source.release = source.release.planned(version);
    // Validates before anything is written.
    Bundle::render(&source, Platform::Openshift)?;
    let deployment = root.join("config/manager/deployment.yaml");
    let tagged = source.release.tagged(&std::fs::read_to_string(&deployment)?);
    write(&deployment, &tagged)?;
    // Tags in the example for another registry.
    let example = root.join("config/default/kustomization.yaml");
    let text = std::fs::read_to_string(&example)?;
    write(&example, &text.replace(&before, &format!("v{version}")))?;
    write(&root.join("olm/release.yaml"), &source.release.yaml())
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, content).with_context(|| format!("failed to write {}", path.display()))
}
