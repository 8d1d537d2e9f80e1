//! The kubectl plugin as it is published: a static program per platform in an archive, and the manifest of krew.
//!
//! Writes: `plugin/` of a release.

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
    target: &'static str,
    compiler: &'static str,
    /// Debian's package with the compiler.
    package: &'static str,
}

/// The platforms that Debian's compilers can build for. The libraries of macOS are Apple's, hence its plugin is built on a Mac:
/// `make plugin`.
pub const PLATFORMS: [Platform; 2] = [
    Platform {
        os: "linux",
        arch: "amd64",
        target: "x86_64-unknown-linux-musl",
        compiler: "gcc",
        package: "gcc",
    },
    Platform {
        os: "linux",
        arch: "arm64",
        target: "aarch64-unknown-linux-musl",
        compiler: "aarch64-linux-gnu-gcc",
        package: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
];

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
    /// What is missing on this machine to build for it; `None`: nothing.
    pub fn missing(&self) -> Option<String> {
        let compiler = Command::new(self.compiler).arg("--version").output();
        if !compiler.is_ok_and(|output| output.status.success()) {
            return Some(format!("{} (Debian: {})", self.compiler, self.package));
        }
        let mut rustc = Command::new("rustc");
        let folder = command::output(rustc.args(["--print", "target-libdir", "--target", self.target]));
        let has_library = folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir());
        (!has_library).then(|| format!("Rust's library for {} (rustup target add {0})", self.target))
    }

    /// Compiles the plugin; the program.
    pub fn build(&self, profile: Profile, commit: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
        say(&format!("plugin: {} {}", self.os, self.arch));
        let cross = product::Cross {
            target: self.target,
            compiler: self.compiler,
        };
        let plugin = product::plugin();
        let folder = product::binary_for(plugin, profile, commit, &cross)?;
        Ok(folder.join(plugin.binary))
    }

    /// Packs the program with the licence and kubectl's completion. Equal programs give equal archives.
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
        fs::copy(
            product::repository().join("LICENSE"),
            content.path().join("LICENSE"),
        )?;
        let file = folder.join(name);
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(content.path())
            .args(["-I", "gzip -n", "-cf"])
            .arg(&file);
        tar.args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=a+rX,u+w,go-w",
        ]);
        command::output(
            tar.arg(format!("--mtime=@{time}"))
                .args(["LICENSE", plugin.binary]),
        )?;
        let sums = command::output(Command::new("sha256sum").arg(&file))?;
        let sha256 = sums.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Archive {
            platform: self,
            file,
            sha256,
        })
    }
}
