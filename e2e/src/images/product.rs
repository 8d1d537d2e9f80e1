//! The images this project ships, built by its own `Containerfile`.

use super::{Builder, Context, Image, PACKAGES, base};
use crate::{command, debian};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const TARGETS: [&str; 3] = ["operator", "controller", "proxy"];

/// Builds the release binaries and their images: operator, controller, proxy. Tags are keys of the content.
pub fn product_images(say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    debian::ensure(PACKAGES, say)?;
    let binaries = release_binaries(say)?;
    let builder = Builder::new()?;
    let base = base::ensure(&builder, say)?;
    TARGETS
        .iter()
        .map(|target| image(&builder, &base, &binaries, target, say))
        .collect()
}

fn image(builder: &Builder, base: &str, binaries: &Path, target: &str, say: &dyn Fn(&str)) -> Result<Image> {
    let binary = binaries.join(format!("multus-service-{target}"));
    let context = Context::new()?
        .with(&repository().join("Containerfile"))?
        .with(&binary)?;
    builder.build(
        &format!("localhost/multus-service/{target}"),
        &context,
        &[("BASE", base)],
        Some(target),
        say,
    )
}

fn release_binaries(say: &dyn Fn(&str)) -> Result<PathBuf> {
    let started = Instant::now();
    say("binaries: cargo build --release");
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .args(["build", "--release", "--locked"])
        .args(TARGETS.iter().flat_map(|target| ["--package", target]));
    command::output(cargo.current_dir(repository()).stdin(Stdio::null()))?;
    say(&format!("binaries: built in {:.0?}", started.elapsed()));
    Ok(target_directory().join("release"))
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
