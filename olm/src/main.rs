//! `olm`: writes `bundle/` and `olm/catalog`, and checks a bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use olm::bundle::Platform;
use olm::{Bundle, Catalog, Source, checks};
use semver::Version;

#[derive(Parser, Debug)]
#[command(
    about = "Generates and checks what the Operator Lifecycle Manager reads",
    version
)]
struct Cli {
    /// The checkout
    #[arg(long, default_value = ".")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write the bundle of config/ and olm/release.yaml
    Bundle {
        /// Another version than olm/release.yaml says
        #[arg(long)]
        version: Option<Version>,
        /// Where it is going to be installed
        #[arg(long, value_enum, default_value = "openshift")]
        platform: Platform,
        /// The folder; everything else in it is removed
        #[arg(long, default_value = "bundle")]
        out: PathBuf,
    },
    /// Write the catalog of olm/catalog-template.yaml and olm/released
    Catalog {
        /// The file
        #[arg(long, default_value = "olm/catalog/multus-service-operator/catalog.yaml")]
        out: PathBuf,
    },
    /// Keep the release for ever in olm/released/<version>: the bundle's entry of the catalog, and the CRD
    Keep,
    /// Say what a reviewer would refuse
    Check {
        /// The bundle's folder
        #[arg(default_value = "bundle")]
        folder: PathBuf,
    },
}

fn main() -> Result<()> {
    let Cli { root, command } = Cli::parse();
    match command {
        Command::Bundle {
            version,
            platform,
            out,
        } => {
            let mut source = Source::read(&root)?;
            if let Some(version) = version {
                source.release.version = version;
            }
            Bundle::render(&source, platform)?.write(&root.join(out))?;
        }
        Command::Catalog { out } => write(&root.join(out), &Catalog::render(&Source::read(&root)?)?.yaml())?,
        Command::Keep => {
            let source = Source::read(&root)?;
            let catalog = Catalog::render(&source)?;
            let entry = catalog.blobs.last().context("the catalog is empty")?;
            let folder = root.join(format!("olm/released/{}", source.release.version));
            write(&folder.join("catalog.yaml"), &serde_saphyr::to_string(entry)?)?;
            write(&folder.join("crd.yaml"), &source.crd_file)?;
        }
        Command::Check { folder } => {
            let findings = checks::run(&Bundle::read(&root.join(folder))?)?;
            if !findings.is_empty() {
                let lines: Vec<_> = findings
                    .iter()
                    .map(|finding| format!("{}: {}", finding.check, finding.message))
                    .collect();
                bail!("{} findings\n{}", lines.len(), lines.join("\n"));
            }
        }
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
