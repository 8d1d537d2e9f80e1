//! The images this project ships, built by its own `Containerfile`.

use super::{Builder, Context, Image, PACKAGES, base};
use crate::{command, debian};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const TARGETS: [&str; 3] = ["operator", "controller", "proxy"];

/// Builds the binaries and their images: operator, controller, proxy. Tags are keys of the content.
pub fn product_images(say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    debian::ensure(PACKAGES, say)?;
    let binaries = binaries(say)?;
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

/// `MULTUS_SERVICE_PROFILE` names another of cargo's profiles: `dev` compiles in seconds what `release` takes minutes for.
fn binaries(say: &dyn Fn(&str)) -> Result<PathBuf> {
    let started = Instant::now();
    let profile = std::env::var("MULTUS_SERVICE_PROFILE").unwrap_or_else(|_| "release".to_owned());
    say(&format!(
        "binaries: cargo build --profile {profile} (minutes the first time, seconds later)"
    ));
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .args(["build", "--profile", &profile, "--locked"])
        .args(TARGETS.iter().flat_map(|target| ["--package", target]));
    command::output(cargo.current_dir(repository()).stdin(Stdio::null()))?;
    say(&format!("binaries: built in {:.0?}", started.elapsed()));
    // The profile `dev` has another folder, for history's sake.
    Ok(target_directory().join(if profile == "dev" { "debug" } else { &profile }))
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
