//! The kubectl plugin, as a user of the two-node cluster runs it: kubectl finds it by its name in `$PATH`.
//!
//! Writes: nothing itself.

use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use testbed::{cluster, tools};

/// Runs `kubectl multus-service` and returns what it printed; `code` is the wanted exit code.
pub fn plugin(args: &[&str], code: i32) -> Result<String> {
    let mut kubectl =
        std::process::Command::new(tools::ensure(&[&tools::KUBECTL], &|_| {})?.main(&tools::KUBECTL)?);
    let output = kubectl
        .arg("multus-service")
        .args(args)
        .env("PATH", path()?)
        .env("KUBECONFIG", cluster::kubeconfig()?)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    println!("   $ kubectl multus-service {}\n{text}{error}", args.join(" "));
    ensure!(
        output.status.code() == Some(code),
        "kubectl multus-service {}: {} instead of {code}\n{text}{error}",
        args.join(" "),
        output.status
    );
    Ok(text)
}

/// `$PATH` with the folder of the plugin, which cargo builds beside the programs of this crate.
fn path() -> Result<OsString> {
    let own = std::env::current_exe()?;
    let mut folders: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(PathBuf::from).collect();
    let has_plugin = |folder: &PathBuf| folder.join("kubectl-multus_service").exists();
    ensure!(
        folders.iter().any(has_plugin),
        "kubectl-multus_service is not beside {}",
        own.display()
    );
    let path = std::env::var_os("PATH").context("there is no PATH")?;
    folders.extend(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}
