//! The kubectl plugin of a release: it runs anywhere, and krew installs it.

use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::{command, tools};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn archive(out: &Path) -> PathBuf {
    out.join(format!(
        "plugin/kubectl-multus_service_v{VERSION}_linux_amd64.tar.gz"
    ))
}

/// The program needs no interpreter, hence no library.
pub(crate) fn is_static(out: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (archive, folder) = (archive(out), scratch.path());
    command::output(
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(folder),
    )?;
    let program = folder.join("kubectl-multus_service");
    let headers = command::output(
        Command::new("readelf")
            .args(["--wide", "--segments"])
            .arg(&program),
    )?;
    ensure!(
        headers.contains("LOAD") && !headers.contains("INTERP"),
        "{headers}"
    );
    let version = command::output(Command::new(&program).arg("--version"))?;
    ensure!(version.contains(VERSION), "{version}");
    for file in ["LICENSE", "THIRD-PARTY-NOTICES"] {
        ensure!(folder.join(file).is_file(), "{file} is missing");
    }
    Ok(())
}

/// As a user installs it, but from the archive instead of its URL, which exists only after the release.
pub(crate) fn is_installed_by_krew(out: &Path) -> Result<()> {
    let tools = tools::ensure(&[&tools::KREW, &tools::KUBECTL], &|line| eprintln!("{line}"))?;
    let manifest = out.join("plugin/multus-service.yaml");
    let mut validate = Command::new(tools.program(&tools::KREW, "validate-krew-manifest")?);
    command::output(validate.arg("-skip-install").arg("-manifest").arg(&manifest))?;

    let root = tempfile::tempdir()?;
    let mut krew = Command::new(tools.program(&tools::KREW, "krew")?);
    krew.env("KREW_ROOT", root.path())
        .env("KREW_NO_UPGRADE_CHECK", "1");
    krew.arg("install")
        .arg("--manifest")
        .arg(&manifest)
        .arg("--archive")
        .arg(archive(out));
    command::output(&mut krew)?;
    let path = std::env::var_os("PATH").context("there is no PATH")?;
    let folders = std::iter::once(root.path().join("bin")).chain(std::env::split_paths(&path));
    let path: OsString = std::env::join_paths(folders)?;
    let mut kubectl = Command::new(tools.main(&tools::KUBECTL)?);
    let help = command::output(
        kubectl
            .args(["multus-service", "explain", "--help"])
            .env("PATH", path),
    )?;
    ensure!(
        help.contains("kubectl multus-service explain service/web"),
        "{help}"
    );
    Ok(())
}
