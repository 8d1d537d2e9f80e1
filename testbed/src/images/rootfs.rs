//! Files of Debian packages for an image without a distribution: no package manager, and no shell unless it is asked for.
//!
//! Writes: the cache. No script of a package runs, hence packages of any architecture can be unpacked.

use super::Builder;
use crate::{command, tools};
use anyhow::Result;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "bookworm";
/// Raise it to fetch Debian's current packages in tests.
const EDITION: u32 = 1;

/// Left out of images: what only a package manager or a reader needs. Copyright files stay.
const NEEDLESS: [&str; 12] = [
    "dev",
    "etc/apt",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/log",
];

/// Packages with those that they depend on.
#[derive(Clone, Debug)]
pub struct Rootfs<'a> {
    /// Names in Debian.
    pub packages: &'a [&'a str],
    /// Debian's name of the architecture, which is Go's: `amd64`, `arm64`.
    pub architecture: &'a str,
    /// Shell commands that add files to the folder `$1`; may be empty.
    pub hook: &'a str,
    /// Fetches the current packages from these mirrors. `None`: those of the cache, for tests.
    pub mirrors: Option<&'a Mirrors>,
}

/// Mirrors of Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// Of the archive, such as `http://deb.debian.org/debian`.
    pub archive: String,
    /// Of security updates, such as `http://deb.debian.org/debian-security`.
    pub security: String,
}

impl Mirrors {
    /// Lines for apt. Without those of updates an image would have the packages of the last point release.
    fn sources(&self) -> [String; 3] {
        let Self { archive, security } = self;
        [
            format!("deb {archive} {SUITE} main"),
            format!("deb {archive} {SUITE}-updates main"),
            format!("deb {security} {SUITE}-security main"),
        ]
    }
}

impl Rootfs<'_> {
    /// Returns an archive with the files, named `rootfs.tar`. Equal packages give equal archives.
    pub fn archive(&self, builder: &Builder, say: &dyn Fn(&str)) -> Result<PathBuf> {
        let folder = builder.archives().join(format!("rootfs-{}", self.key()));
        let archive = folder.join("rootfs.tar");
        if self.mirrors.is_none() && archive.exists() {
            return Ok(archive);
        }
        say(&format!(
            "packages for {}: {}",
            self.architecture,
            self.packages.join(" ")
        ));
        fs::create_dir_all(&folder)?;
        let scratch = tempfile::TempDir::with_prefix_in("rootfs-", builder.archives())?;
        let root = scratch.path().join("root");
        self.unpack(&root)?;
        prune(&root)?;
        self.complete(&root)?;
        let partial = scratch.path().join("partial.tar");
        pack(&root, &partial)?;
        fs::rename(partial, &archive)?;
        Ok(archive)
    }

    /// Adds what a script of a package would, and the files of the image. Runtimes name paths below /var/run.
    fn complete(&self, root: &Path) -> Result<()> {
        let script = format!(
            "set -e; set -- \"$0\"; mkdir -p \"$1/run\" \"$1/var\"; mkdir -p -m 1777 \"$1/tmp\"; rm -rf \"$1/var/run\"; ln -s /run \"$1/var/run\"\n{}",
            self.hook
        );
        command::run("bash", &["-c", &script, &root.display().to_string()])?;
        Ok(())
    }

    fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{EDITION} {self:?}"));
        // What is done with the packages is this file.
        hash.update(include_str!("rootfs.rs"));
        tools::hex(&hash.finalize()[..6])
    }

    fn unpack(&self, root: &Path) -> Result<()> {
        // As in distroless images: scanners read the installed packages from this folder.
        let list = "mkdir -p \"$1/var/lib/dpkg/status.d\" && for deb in \"$1\"/var/cache/apt/archives/*.deb; do \
                    dpkg-deb --field \"$deb\" >\"$1/var/lib/dpkg/status.d/$(dpkg-deb --field \"$deb\" Package)\" || exit; done";
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap.args(["--quiet", "--variant=extract"]);
        mmdebstrap.arg(format!("--architectures={}", self.architecture));
        mmdebstrap.arg(format!("--include={}", self.packages.join(",")));
        mmdebstrap.arg(format!("--extract-hook={list}"));
        mmdebstrap.arg(SUITE).arg(root);
        if let Some(mirrors) = self.mirrors {
            mmdebstrap.args(mirrors.sources());
        }
        command::output(&mut mmdebstrap)?;
        Ok(())
    }
}

/// Removes what an image does not need.
fn prune(root: &Path) -> Result<()> {
    let mut script = String::from("set -e; cd \"$0\"; shopt -s nullglob\n");
    for path in NEEDLESS {
        let _ = writeln!(script, "rm -rf {path}");
    }
    // Character sets besides UTF-8, and what dpkg keeps of packages that are not installed.
    script.push_str("rm -rf usr/lib/*/gconv var/lib/apt\n");
    script.push_str("find var/lib/dpkg -mindepth 1 -maxdepth 1 ! -name status.d -exec rm -rf {} +\n");
    script.push_str("find usr/share/doc -type f ! -name copyright -delete\n");
    script.push_str("find usr/share/doc -type d -empty -delete\n");
    command::run("bash", &["-c", &script, &root.display().to_string()])?;
    Ok(())
}

fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut tar = command::reproducible_tar(0);
    command::output(tar.arg("-C").arg(root).arg("-cf").arg(archive).arg("."))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_images_have_security_updates() {
        let mirrors = Mirrors {
            archive: "http://deb.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
        };
        assert_eq!(
            mirrors.sources(),
            [
                "deb http://deb.debian.org/debian bookworm main",
                "deb http://deb.debian.org/debian bookworm-updates main",
                "deb http://deb.debian.org/debian-security bookworm-security main",
            ]
        );
    }
}
