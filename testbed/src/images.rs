//! Container images without a docker engine or a registry.
//!
//! Writes: the cache (`images/`, `buildah/`). Every image is built by buildah from a `Containerfile`, on a Debian base that
//! mmdebstrap makes, and ends as a docker-archive that a container runtime can load. An image is built again only when something
//! that goes into it changed.

pub mod base;
mod builder;
mod context;
mod rootfs;

use crate::{command, debian, tools};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use builder::Builder;
pub use context::Context;
pub use rootfs::{Mirrors, Rootfs};

/// Debian packages that building images takes.
pub const PACKAGES: &[&str] = &["mmdebstrap", "buildah", "gcc", "libc6-dev"];

/// An image as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Full name with tag; never resolves in a registry.
    pub name: String,
    /// docker-archive.
    pub archive: PathBuf,
}

/// Name of the sandbox image of every node.
pub const PAUSE: &str = "localhost/bed/pause:1";
/// Name of the cluster's DNS server.
pub const COREDNS: &str = "localhost/bed/coredns:1";
/// Name of the image that the demo's and the tests' pods run.
pub const WORKLOAD: &str = "localhost/bed/workload:1";

/// The images that every test cluster has: pause, CoreDNS, workload. `say` receives a line per build.
pub fn bed_images(say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    debian::ensure(PACKAGES, say)?;
    let builder = Builder::new()?;
    let base = base::ensure(&builder, say)?;
    Ok(vec![
        pause(&builder, say)?,
        coredns(&builder, say)?,
        workload(&builder, &base, say)?,
    ])
}

fn pause(builder: &Builder, say: &dyn Fn(&str)) -> Result<Image> {
    let context = Context::new()?.with(&source("pause/Containerfile"))?;
    let compile = ["-O2", "-static", "-s", "-o"].map(Path::new);
    let (output, input) = (context.path().join("pause"), source("pause/pause.c"));
    command::output(Command::new("gcc").args(compile).arg(&output).arg(&input))?;
    builder.build(PAUSE, &context, &[], None, say)
}

fn coredns(builder: &Builder, say: &dyn Fn(&str)) -> Result<Image> {
    let program = tools::ensure(&[&tools::COREDNS], say)?.main(&tools::COREDNS)?;
    let context = Context::new()?
        .with(&source("coredns/Containerfile"))?
        .with(&program)?;
    builder.build(COREDNS, &context, &[], None, say)
}

fn workload(builder: &Builder, base: &str, say: &dyn Fn(&str)) -> Result<Image> {
    let context = Context::new()?
        .with(&source("workload/Containerfile"))?
        .with(&source("workload/nginx.conf"))?;
    builder.build(WORKLOAD, &context, &[("BASE", base)], None, say)
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(file)
}
