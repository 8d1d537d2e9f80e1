//! Debian packages the test bed needs: installs what is missing, after saying so.
//!
//! Writes: the machine's package database, by `apt-get`.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::command;

/// Held while apt-get runs, also by `.ci/levels`.
const LOCK: &str = "/run/multus-service-apt.lock";

/// Installs missing `packages`. `say` receives a line before the installation.
pub fn ensure(packages: &[&str], say: &dyn Fn(&str)) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    // apt-get does not wait for another, and the level netns and what is made ahead of the others run at the same time.
    let lock = File::create(LOCK).with_context(|| format!("cannot create {LOCK}: root is needed"))?;
    lock.lock()?;
    say(&format!("installing Debian packages: {}", missing.join(" ")));
    let remedy = || format!("install them manually: apt-get install {}", missing.join(" "));
    apt_get(&["update"]).with_context(remedy)?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt_get(&install).with_context(remedy)
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query exits with 1 when a package is unknown and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stdin(Stdio::null())
        .output()
        .context("cannot run dpkg-query: the test bed supports Debian and its derivatives only")?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&output.stdout)))
}

fn not_installed<'a>(packages: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed: Vec<_> = listing
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    let missing = packages.iter().filter(|package| !installed.contains(package));
    missing.copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn apt_get(args: &[&str]) -> Result<()> {
    command::output(
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null()),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_unknown_packages_are_missing() {
        let listing = "runc installed\nconmon config-files\n";
        assert_eq!(
            not_installed(&["socat", "runc", "conmon", "socat"], listing),
            ["conmon", "socat"]
        );
    }
}
