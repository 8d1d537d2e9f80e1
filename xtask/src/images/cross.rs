//! Toolchains for other targets than this machine's.
//!
//! Writes: the machine's packages, and the libraries of rustup's toolchain.

use crate::checkout;
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::Command;
use testbed::{command, debian};

/// A target of rustc, and what compiles and links C for it.
#[derive(Debug)]
pub struct Cross {
    /// Name in rustc.
    pub target: &'static str,
    /// C compiler, which links, too.
    pub compiler: &'static str,
    /// Debian's packages with it.
    packages: &'static [&'static str],
}

const PACKAGES_ARM64: &[&str] = &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];

/// Programs of images for arm64.
pub const ARM64: Cross = Cross {
    target: "aarch64-unknown-linux-gnu",
    compiler: "aarch64-linux-gnu-gcc",
    packages: PACKAGES_ARM64,
};
/// Static programs for amd64. C code is compiled with glibc's headers: what there is of it (ring's) uses no function that differs.
pub const STATIC_AMD64: Cross = Cross {
    target: "x86_64-unknown-linux-musl",
    compiler: "gcc",
    packages: &["gcc", "libc6-dev"],
};
/// Static programs for arm64.
pub const STATIC_ARM64: Cross = Cross {
    target: "aarch64-unknown-linux-musl",
    compiler: "aarch64-linux-gnu-gcc",
    packages: PACKAGES_ARM64,
};

impl Cross {
    /// Installs what is missing. `say` receives a line before an installation.
    pub fn ensure(&self, say: &dyn Fn(&str)) -> Result<()> {
        debian::ensure(self.packages, say)?;
        if self.has_library()? {
            return Ok(());
        }
        say(&format!("rustup: adding {}", self.target));
        let mut rustup = Command::new("rustup");
        rustup
            .args(["target", "add", self.target])
            .current_dir(checkout());
        command::output(&mut rustup).with_context(|| {
            format!(
                "install Rust's library manually: rustup target add {}",
                self.target
            )
        })?;
        Ok(())
    }

    fn has_library(&self) -> Result<bool> {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print", "target-libdir", "--target", self.target]);
        let folder = command::output(rustc.current_dir(checkout()))?;
        Ok(Path::new(folder.trim()).is_dir())
    }
}
