//! Checks that a checkout is ready for a release.
//!
//! Writes: nothing.

use super::Options;
use crate::images::Profile;
use anyhow::{Context as _, Result, ensure};
use olm::community::config::Ci;
use olm::{Project, Source, csv_name, graph, text};
use semver::Version;
use std::fs;
use std::path::Path;
use std::process::Command;
use testbed::command;

/// Files that the release writes into the checkout: a second attempt finds them changed.
const OUTPUTS: [&str; 5] = [
    "olm/release.yaml",
    "olm/catalog",
    "bundle",
    "charts",
    "config/manager/deployment.yaml",
];

/// Rejects a version that the checkout at `root` is not ready for, and a folder that is not a release's.
pub(super) fn check(root: &Path, version: &Version, options: &Options) -> Result<()> {
    let of_crates = Version::parse(env!("CARGO_PKG_VERSION"))?;
    let core = Version::new(version.major, version.minor, version.patch);
    ensure!(
        core == of_crates,
        "the binaries are of version {of_crates}, not {core}: set workspace.package.version in Cargo.toml"
    );
    changelog(&fs::read_to_string(root.join("CHANGELOG.md"))?, version)?;
    let source = Source::read(root)?;
    let name = csv_name(version);
    ensure!(
        graph::channels(&source.template)
            .iter()
            .any(|channel| channel.entry(&name).is_some()),
        "no channel of olm/catalog-template.yaml has an entry {name}"
    );
    ensure!(
        source.released.iter().all(|blob| text(blob, "/name") != name),
        "olm/released has {version} already, and what was published never changes: release another version"
    );
    ensure!(
        options.profile == Profile::Dev || Profile::of_environment() == Profile::Release,
        "MULTUS_SERVICE_PROFILE=dev is set, and a release needs optimized binaries: unset it, or give --dev-binaries for a trial"
    );
    if !options.allow_dirty {
        reviewers(&source, options)?;
        clean(root)?;
    }
    if !options.is_trial() {
        identity(&source.project.with(&options.identity))?;
    }
    replaceable(&options.out)
}

/// The section of a release has a date; that of its candidates may still say that it has not been released.
fn changelog(text: &str, version: &Version) -> Result<()> {
    let core = Version::new(version.major, version.minor, version.patch);
    let section = format!("## [{core}]");
    let rest = text.lines().find_map(|line| line.strip_prefix(&*section));
    let rest = rest.with_context(|| format!("CHANGELOG.md has no section \"{section} - <date>\""))?;
    let date = rest.strip_prefix(" - ");
    let is_dated = date.is_some_and(|date| chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").is_ok());
    ensure!(
        is_dated || !version.pre.is_empty(),
        "CHANGELOG.md says \"{section}{rest}\": write the date, as in \"{section} - 2026-01-31\""
    );
    Ok(())
}

/// The catalogs' pipelines reject a package without them.
fn reviewers(source: &Source, options: &Options) -> Result<()> {
    let ci = Ci {
        reviewers: source.project.with(&options.identity).reviewers,
        ..source.ci()?
    };
    let faults = ci.reviewer_faults();
    ensure!(
        faults.is_empty(),
        "the community catalogs would reject the reviewers of project.yaml: {}: write the GitHub accounts of the maintainers there, or give --allow-dirty for a trial",
        faults.join(", ")
    );
    Ok(())
}

/// The images' labels name the commit they are of.
fn clean(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["status", "--porcelain", "--", "."]);
    git.args(OUTPUTS.map(|path| format!(":!{path}")));
    let changed = command::output(&mut git)?;
    ensure!(
        changed.trim().is_empty(),
        "the images would say that they are of a commit that they are not of: commit these first, or give --allow-dirty for a trial\n{changed}"
    );
    Ok(())
}

/// What is published names a place to pull from, and persons that answer.
fn identity(project: &Project) -> Result<()> {
    let found: Vec<_> = project.placeholders().iter().map(ToString::to_string).collect();
    ensure!(
        found.is_empty(),
        "{}\nfor a trial, give --dev-binaries or --allow-dirty",
        found.join("\n")
    );
    Ok(())
}

/// Everything in the folder is going to be removed.
fn replaceable(out: &Path) -> Result<()> {
    let is_empty = !out.exists() || fs::read_dir(out)?.next().is_none();
    ensure!(
        is_empty || out.join("images").is_dir(),
        "{} is not empty and holds no release: name another folder",
        out.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_dated_section_in_the_changelog() {
        let check = |heading: &str, version: &str| {
            let text = format!("# Changelog\n\n{heading}\n\n- Something.\n");
            changelog(&text, &Version::parse(version).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(check("## [0.1.0] - 2026-11-26", "0.1.0"), Ok(()));
        assert_eq!(check("## [0.1.0] - Unreleased", "0.1.0-rc.1"), Ok(()));
        for heading in ["## [0.1.0] - Unreleased", "## [0.1.0]", "## [0.1.0] - soon"] {
            assert!(
                check(heading, "0.1.0").unwrap_err().contains("write the date"),
                "{heading}"
            );
        }
        for heading in [
            "## [Unreleased]",
            "## [0.1.01] - 2026-11-26",
            "## [0.2.0] - 2026-11-26",
        ] {
            assert!(
                check(heading, "0.1.0").unwrap_err().contains("no section"),
                "{heading}"
            );
        }
    }

    #[test]
    fn only_a_releases_folder_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        assert!(replaceable(&folder.path().join("new")).is_ok());
        assert!(replaceable(folder.path()).is_ok());
        fs::write(folder.path().join("letter"), "").unwrap();
        assert!(replaceable(folder.path()).is_err());
        fs::create_dir(folder.path().join("images")).unwrap();
        assert!(replaceable(folder.path()).is_ok());
    }
}
