//! The images of a release: each an index of its architectures, and what certification wants.

use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use testbed::command;
use xtask::images::inspect;
use xtask::images::policy::Image;

/// Returns true in `make nightly`. arm64 is another compilation of everything.
pub(crate) fn is_long() -> bool {
    std::env::var_os("MULTUS_SERVICE_LONG").is_some()
}

pub(crate) fn follow_the_policy(out: &Path) -> Result<()> {
    let wanted: &[&str] = if is_long() {
        &["amd64", "arm64"]
    } else {
        &["amd64"]
    };
    for (name, program) in [
        ("operator", "multus-service-operator"),
        ("controller", "multus-service-controller"),
        ("proxy", "multus-service-proxy"),
        ("tools", "kubectl-multus_service"),
    ] {
        let archive = out.join(format!("images/{name}.oci.tar"));
        let images = inspect::oci(&archive, name)?;
        let architectures: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(architectures == wanted, "{name}: {architectures:?}");
        for (architecture, image) in &images {
            let mut findings = image.findings();
            // Binaries of the profile dev are several times as large.
            findings.retain(|finding| !finding.contains(" MiB, more than "));
            ensure!(findings.is_empty(), "{name} {architecture}: {findings:#?}");
            let loader = match architecture.as_str() {
                "amd64" => "lib64/ld-linux-x86-64.so.2",
                _ => "lib/ld-linux-aarch64.so.1",
            };
            ensure!(
                image.files.contains_key(loader),
                "{name} {architecture} lacks {loader}"
            );
            let program = format!("usr/bin/{program}");
            is_complete(&archive, architecture, image, &program)
                .with_context(|| format!("image {name} for {architecture}"))?;
        }
    }
    Ok(())
}

/// Every library that the program names is in the image: `readelf`, because a program of arm64 cannot run here.
fn is_complete(archive: &Path, architecture: &str, image: &Image, program: &str) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    inspect::extract(archive, architecture, program, scratch.path())?;
    let file = scratch.path().join(program).display().to_string();
    let dynamic = command::run("readelf", &["--dynamic", "--wide", &file])?;
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    for library in needed.filter_map(|line| line.split(['[', ']']).nth(1)) {
        let suffix = format!("/{library}");
        let is_there = image.files.keys().any(|file| file.ends_with(&suffix));
        ensure!(is_there, "{library} is missing");
    }
    let header = command::run("readelf", &["--file-header", &file])?;
    let machine = match architecture {
        "amd64" => "X86-64",
        _ => "AArch64",
    };
    ensure!(header.contains(machine), "{header}");
    Ok(())
}
