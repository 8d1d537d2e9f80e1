//! `make release VERSION=...`: everything that is published, in dist/.

use clap::Parser;
use olm::project::Overrides;
use semver::Version;
use std::path::{Path, PathBuf};
use testbed::images::Mirrors;
use xtask::images::Profile;
use xtask::release::{Maker, Options};

/// Makes a release: images, SBOMs, install.yaml, bundle, catalog and the pull request to a catalog, with every image by digest
///
/// Writes dist/VERSION, and in the checkout olm/release.yaml, bundle/, olm/catalog and the tags in config/manager.
#[derive(Parser)]
#[command(name = "release")]
struct Args {
    /// Such as 0.1.0 or 0.1.0-rc.1
    version: Version,
    /// Instead of dist/VERSION; what a release left there is removed
    #[arg(long)]
    out: Option<PathBuf>,
    /// For a trial: with changes that are not committed, and without reviewers in project.yaml
    #[arg(long)]
    allow_dirty: bool,
    /// For a trial: binaries that are not optimized
    #[arg(long)]
    dev_binaries: bool,
    /// Mirror of Debian for the packages in the images; one of a time, such as snapshot.debian.org, makes the images reproducible
    #[arg(long, default_value = "http://deb.debian.org/debian")]
    debian_mirror: String,
    /// The same for security updates
    #[arg(long, default_value = "http://deb.debian.org/debian-security")]
    debian_security_mirror: String,
    /// Leave out arm64
    #[arg(long)]
    no_arm64: bool,
    /// The program that lists what a binary is made of
    #[arg(long, default_value = "cargo-cyclonedx")]
    cyclonedx: PathBuf,
    #[command(flatten)]
    identity: Overrides,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = || Path::new("dist").join(args.version.to_string());
    let out = args.out.clone().unwrap_or_else(folder);
    let options = Options {
        out: out.clone(),
        profile: if args.dev_binaries {
            Profile::Dev
        } else {
            Profile::Release
        },
        allow_dirty: args.allow_dirty,
        arm64: !args.no_arm64,
        mirrors: Some(Mirrors {
            archive: args.debian_mirror,
            security: args.debian_security_mirror,
        }),
        cyclonedx: args.cyclonedx,
        identity: args.identity,
    };
    Maker::new(Path::new("."), args.version, options)?.make(&|line| eprintln!("{line}"))?;
    eprintln!("{}: complete", out.display());
    Ok(())
}
