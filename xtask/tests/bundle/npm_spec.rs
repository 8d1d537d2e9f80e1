//! `olm::npm_range` reads ranges as the community catalogs' pipelines do: with `NpmSpec` of the Python package `semantic-version`.

use anyhow::{Context as _, Result, ensure};
use olm::npm_range;
use semver::Version;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use testbed::{command, tools};

/// The version in the pipelines' lock file.
const PACKAGE: &str = "semantic-version==2.10.0";

/// One line for each range: its versions.
const SCRIPT: &str = "import sys
from semantic_version import NpmSpec, Version
ranges, versions = sys.argv[1].split(';'), sys.argv[2].split(';')
for range in ranges:
    print(' '.join(version for version in versions if Version(version) in NpmSpec(range)))
";

/// The folder with the package, installed by pip once.
fn package() -> Result<PathBuf> {
    let tools = tools::cache()?.join("tools");
    std::fs::create_dir_all(&tools)?;
    let folder = tools.join("semantic-version-2.10.0");
    let lock = File::create(folder.with_extension("0.lock"))?;
    lock.lock()?;
    if !folder.exists() {
        let new = folder.with_extension("0.new");
        let target = new.display().to_string();
        let args = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
            &target,
            PACKAGE,
        ];
        command::run("python3", &args).context("cannot install semantic-version with pip")?;
        std::fs::rename(new, &folder)?;
    }
    Ok(folder)
}

fn versions() -> Vec<String> {
    let mut versions = Vec::new();
    for core in ["0.0.9", "0.1.0", "0.1.1", "0.2.0", "1.0.0"] {
        for candidate in ["-rc.1", "-rc.2", ""] {
            versions.push(format!("{core}{candidate}"));
        }
    }
    versions
}

/// Every pair of a lower and an upper bound, each alone, equality and alternatives.
fn ranges() -> Vec<String> {
    let mut ranges = Vec::new();
    let bounds = ["0.1.0-rc.1", "0.1.0", "0.1.1-rc.2", "0.2.0-rc.1", "0.2.0"];
    for low in bounds {
        ranges.extend([
            low.to_owned(),
            format!("={low}"),
            format!(">{low}"),
            format!("<={low}"),
        ]);
        for high in bounds {
            ranges.push(format!(">={low} <{high}"));
            ranges.push(format!(">{low} <={high} || ={high}"));
        }
    }
    ranges
}

#[test]
#[ignore = "installs a Python package: make test-e2e"]
fn b4_the_pipelines_read_ranges_as_npm_range() -> Result<()> {
    let (versions, ranges) = (versions(), ranges());
    let printed = command::output(
        Command::new("python3")
            .args(["-c", SCRIPT, &ranges.join(";"), &versions.join(";")])
            .env("PYTHONPATH", package()?),
    )?;
    let theirs: Vec<_> = printed.lines().collect();
    ensure!(theirs.len() == ranges.len(), "{printed}");
    let mut found = 0;
    for (range, theirs) in ranges.iter().zip(theirs) {
        let mut ours = Vec::new();
        for version in &versions {
            let contained = npm_range::contains(range, &Version::parse(version)?);
            if contained.with_context(|| format!("{range:?} is not evaluated"))? {
                ours.push(version.as_str());
            }
        }
        ensure!(ours.join(" ") == theirs, "{range}: {ours:?}, NpmSpec: {theirs}");
        found += ours.len();
    }
    ensure!(found > 100, "{found} versions in {} ranges", ranges.len());
    Ok(())
}
