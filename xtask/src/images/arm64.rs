//! The binaries for arm64, cross-compiled on amd64.

use super::product::{self, Profile};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::command;

/// The Rust target.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Debian's package `gcc-aarch64-linux-gnu` with `libc6-dev-arm64-cross`.
const COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Message about missing packages.
pub fn missing() -> Vec<String> {
    let compiler = Command::new(COMPILER).arg("--version").output();
    let library =
        command::output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
    missing_of(
        compiler.is_ok_and(|output| output.status.success()),
        library.is_ok_and(|path| Path::new(path.trim()).is_dir()),
    )
}

fn missing_of(has_compiler: bool, has_library: bool) -> Vec<String> {
    let needed = [
        (
            has_compiler,
            format!("{COMPILER} (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)"),
        ),
        (
            has_library,
            format!("Rust's library for it (rustup target add {TARGET})"),
        ),
    ];
    let missing = needed.into_iter().filter(|(is_there, _)| !is_there);
    missing.map(|(_, what)| what).collect()
}

/// Compiles the binaries of a commit; where they are.
pub fn binaries(profile: Profile, commit: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
    let cross = product::Cross {
        target: TARGET,
        compiler: COMPILER,
    };
    product::binaries_for(profile, Some(commit), Some(&cross), say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert_eq!(missing_of(true, true), Vec::<String>::new());
        let both = missing_of(false, false);
        assert_eq!(both.len(), 2);
        assert!(
            both[0].contains("gcc-aarch64-linux-gnu") && both[1].contains("rustup target add"),
            "{both:?}"
        );
        assert_eq!(missing_of(true, false), both[1..]);
        assert_eq!(missing_of(false, true), both[..1]);
    }
}
