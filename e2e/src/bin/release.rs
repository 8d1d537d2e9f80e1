//! `make release VERSION=...`: everything that is published, in dist/.

use clap::Parser;
use e2e::release::Maker;
use semver::Version;
use std::path::Path;

/// Makes a release: images, SBOMs, install.yaml, bundle and catalog, with every image by digest
///
/// Writes dist/VERSION, and in the checkout olm/release.yaml, bundle/ and olm/catalog.
#[derive(Parser)]
#[command(name = "release")]
struct Args {
    /// Such as 0.1.0 or 0.1.0-rc.1
    version: Version,
}

fn main() -> anyhow::Result<()> {
    let Args { version } = Args::parse();
    let out = Path::new("dist").join(version.to_string());
    Maker::new(Path::new("."), &out, version)?.make(&|line| eprintln!("{line}"))?;
    eprintln!("{}: complete", out.display());
    Ok(())
}
