//! The base image: a minimal Debian, made from Debian's packages.

use super::builder::Builder;
use super::context::Context;
use super::source;
use crate::command;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

const SUITE: &str = "bookworm";
/// Raise it to fetch Debian's current packages.
const EDITION: u32 = 1;

/// Makes sure the base is in buildah's storage; returns its name.
pub fn ensure(builder: &Builder, say: &dyn Fn(&str)) -> Result<String> {
    let folder = builder.archives().join(format!("{SUITE}-{EDITION}"));
    let tar = folder.join("base.tar");
    if !tar.exists() {
        say("image base: installing a minimal Debian (about half a minute)");
        fs::create_dir_all(&folder)?;
        // mmdebstrap derives the format from the suffix.
        let partial = folder.join("partial.tar");
        bootstrap(&partial)?;
        fs::rename(partial, &tar)?;
    }
    let context = Context::new()?.with(&source("base/Containerfile"))?.with(&tar)?;
    builder.build_base("localhost/bed/base", &context, say)
}

fn bootstrap(tar: &Path) -> Result<()> {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", "--quiet"]);
    for path in ["man", "doc", "locale", "info"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    command::output(mmdebstrap.arg(SUITE).arg(tar))?;
    Ok(())
}
