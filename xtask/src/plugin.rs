//! The kubectl plugin as it is published: a static program per platform in an archive, and the manifest of krew.
//!
//! Writes: `plugin/` of a release.

use crate::checkout;
use crate::images::cross::{Cross, STATIC_AMD64, STATIC_ARM64};
use crate::images::{Profile, product};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::command;

mod krew;

pub use krew::{NAME, manifest};

/// A platform of the plugin. musl: the program needs no library of the user's machine.
#[derive(Debug)]
pub struct Platform {
    /// Name of krew and Go.
    pub os: &'static str,
    /// Name of krew and Go.
    pub arch: &'static str,
    cross: &'static Cross,
}

/// The platforms that Debian's compilers can build for. The libraries of macOS are Apple's, hence its plugin is built on a Mac:
/// `make plugin`.
pub const PLATFORMS: [Platform; 2] = [
    Platform {
        os: "linux",
        arch: "amd64",
        cross: &STATIC_AMD64,
    },
    Platform {
        os: "linux",
        arch: "arm64",
        cross: &STATIC_ARM64,
    },
];

/// Files beside the program, in the order of their names.
const LICENCES: [&str; 2] = ["LICENSE", "THIRD-PARTY-NOTICES"];

/// An archive of one platform.
#[derive(Debug)]
pub struct Archive {
    /// Its platform.
    pub platform: &'static Platform,
    /// The file.
    pub file: PathBuf,
    /// Hexadecimal digest of the file.
    pub sha256: String,
}

impl Platform {
    /// Compiles the plugin; the program.
    pub fn build(&self, profile: Profile, commit: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
        self.cross.ensure(say)?;
        say(&format!("plugin: {} {}", self.os, self.arch));
        let plugin = product::plugin();
        let folder = product::binary_for(plugin, profile, commit, self.cross)?;
        Ok(folder.join(plugin.binary))
    }

    /// Packs the program with the licence, which the index of krew wants. Equal programs give equal archives.
    pub fn archive(
        &'static self,
        program: &Path,
        version: &str,
        time: i64,
        folder: &Path,
    ) -> Result<Archive> {
        let name = format!(
            "kubectl-multus_service_v{version}_{}_{}.tar.gz",
            self.os, self.arch
        );
        let content = tempfile::tempdir()?;
        let plugin = product::plugin();
        fs::copy(program, content.path().join(plugin.binary))?;
        for file in LICENCES {
            fs::copy(checkout().join(file), content.path().join(file))?;
        }
        let file = folder.join(name);
        let mut tar = command::reproducible_tar(time);
        tar.arg("-C").arg(content.path());
        tar.args(["-I", "gzip -n", "--mode=a+rX,u+w,go-w", "-cf"])
            .arg(&file);
        command::output(tar.args(LICENCES).arg(plugin.binary))?;
        let sums = command::output(Command::new("sha256sum").arg(&file))?;
        let sha256 = sums.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Archive {
            platform: self,
            file,
            sha256,
        })
    }
}
