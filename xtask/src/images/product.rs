//! The images this project ships, built by its own `Containerfile`.

use super::cross::Cross;
use crate::checkout;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use testbed::images::{Builder, Context, Image, Mirrors, PACKAGES, Rootfs};
use testbed::{command, debian};

/// An image and the program in it.
#[derive(Debug)]
pub(crate) struct Product {
    /// Name of the image, and target in the `Containerfile`.
    pub(crate) image: &'static str,
    /// Crate of the program.
    pub(crate) package: &'static str,
    /// Name of the program.
    pub(crate) binary: &'static str,
    /// Debian packages beside it, without those that they depend on.
    packages: &'static [&'static str],
    /// Shell commands that add files to `$1`.
    hook: &'static str,
}

/// Go's and Debian's name of the architecture of this machine's images.
pub(super) const AMD64: &str = "amd64";

/// The libraries that every program links.
const GLIBC: &[&str] = &["libc6", "libgcc-s1"];

/// What is shipped.
pub(crate) const PRODUCTS: [Product; 4] = [
    Product {
        image: "operator",
        package: "operator",
        binary: "multus-service-operator",
        packages: GLIBC,
        hook: "",
    },
    Product {
        image: "controller",
        package: "controller",
        binary: "multus-service-controller",
        packages: GLIBC,
        hook: "",
    },
    Product {
        image: "proxy",
        package: "proxy",
        binary: "multus-service-proxy",
        // Both variants, legacy and nft.
        packages: &["libc6", "libgcc-s1", "iptables"],
        hook: "",
    },
    Product {
        image: "tools",
        package: "cli",
        binary: "kubectl-multus_service",
        // `oc adm must-gather` starts /usr/bin/gather by bash and copies the report by tar.
        packages: &["libc6", "libgcc-s1", "bash", "coreutils", "tar"],
        hook: "ln -s kubectl-multus_service \"$1/usr/bin/gather\" && mkdir --mode=1777 \"$1/must-gather\"",
    },
];

/// Build profile of the binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As they are published.
    Release,
    /// As the tests', in seconds.
    Dev,
}

impl Profile {
    /// `MULTUS_SERVICE_PROFILE=dev`, for short loops and tests.
    pub fn of_environment() -> Self {
        match std::env::var("MULTUS_SERVICE_PROFILE") {
            Ok(profile) if profile == "dev" => Self::Dev,
            _ => Self::Release,
        }
    }
}

/// Builds the binaries and the images of [`PRODUCTS`]. Tags are keys of the content.
pub fn product_images(say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    images(&[], say)
}

/// The same programs as images of a release of this version: other images to Kubernetes.
pub fn release_images(version: &str, say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    images(&[("VERSION", version)], say)
}

fn images(arguments: &[(&str, &str)], say: &dyn Fn(&str)) -> Result<Vec<Image>> {
    debian::ensure(PACKAGES, say)?;
    let binaries = binaries(Profile::of_environment(), None, say)?;
    let builder = Builder::new()?;
    PRODUCTS
        .iter()
        .map(|product| image(&builder, arguments, &binaries, product, say))
        .collect()
}

fn image(
    builder: &Builder,
    arguments: &[(&str, &str)],
    binaries: &Path,
    product: &Product,
    say: &dyn Fn(&str),
) -> Result<Image> {
    let rootfs = product.rootfs(AMD64, None).archive(builder, say)?;
    let context = context(&binaries.join(product.binary), &rootfs)?;
    builder.build(
        &format!("localhost/multus-service/{}", product.image),
        &context,
        arguments,
        Some(product.image),
        say,
    )
}

impl Product {
    /// Packages for the image; with mirrors, their current ones.
    pub(super) fn rootfs<'a>(&self, architecture: &'a str, mirrors: Option<&'a Mirrors>) -> Rootfs<'a> {
        Rootfs {
            packages: self.packages,
            architecture,
            hook: self.hook,
            mirrors,
        }
    }
}

/// The recipe and everything that it copies.
pub(super) fn context(binary: &Path, rootfs: &Path) -> Result<Context> {
    let of_repository = |name: &str| checkout().join(name);
    Context::new()?
        .with(&of_repository("Containerfile"))?
        .with(&of_repository("LICENSE"))?
        .with(&of_repository("THIRD-PARTY-NOTICES"))?
        .with(rootfs)?
        .with(binary)
}

/// The kubectl plugin.
pub(crate) fn plugin() -> &'static Product {
    &PRODUCTS[3]
}

/// Compiles the binaries of [`PRODUCTS`]; where they are. Those of a release know their `commit`.
pub(super) fn binaries(profile: Profile, commit: Option<&str>, say: &dyn Fn(&str)) -> Result<PathBuf> {
    binaries_for(profile, commit, None, say)
}

/// [`binaries`], for this machine's architecture or another.
pub(super) fn binaries_for(
    profile: Profile,
    commit: Option<&str>,
    cross: Option<&Cross>,
    say: &dyn Fn(&str),
) -> Result<PathBuf> {
    let dev = profile == Profile::Dev;
    let started = Instant::now();
    let mut cargo = cargo();
    cargo.args(["build", "--locked"]);
    if dev {
        say("binaries: cargo build, not optimized");
        // All of the workspace: one package alone has other features of its dependencies, and they would be compiled again.
        cargo
            .arg("--workspace")
            .args(PRODUCTS.iter().flat_map(|product| ["--bin", product.binary]));
    } else {
        say("binaries: cargo build --release (minutes the first time, seconds later)");
        cargo
            .arg("--release")
            .args(PRODUCTS.iter().flat_map(|product| ["--package", product.package]));
    }
    if let Some(commit) = commit {
        // Read by the `main.rs` of each binary.
        cargo.env("MULTUS_SERVICE_COMMIT", commit);
    }
    let folder = build(cargo, profile, cross)?;
    say(&format!("binaries: built in {:.0?}", started.elapsed()));
    Ok(folder)
}

/// Compiles one binary of a commit for another target; where it is.
pub(crate) fn binary_for(
    product: &Product,
    profile: Profile,
    commit: &str,
    cross: &Cross,
) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args([
        "build",
        "--locked",
        "--package",
        product.package,
        "--bin",
        product.binary,
    ]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo.env("MULTUS_SERVICE_COMMIT", commit);
    build(cargo, profile, Some(cross))
}

fn build(mut cargo: Command, profile: Profile, cross: Option<&Cross>) -> Result<PathBuf> {
    let mut folder = target_directory();
    if let Some(Cross { target, compiler, .. }) = cross {
        let target_in_names = target.replace('-', "_");
        cargo.args(["--target", target]);
        cargo.env(format!("CC_{target_in_names}"), compiler);
        cargo.env(
            format!("CARGO_TARGET_{}_LINKER", target_in_names.to_uppercase()),
            compiler,
        );
        folder.push(target);
    }
    command::output(cargo.current_dir(checkout()).stdin(Stdio::null()))?;
    Ok(folder.join(match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    }))
}

/// Cargo as from a shell. Cargo sets variables of the package for the program that it runs, and build scripts that read these variables,
/// like ring's, would run again, and half of all crates with them, whenever a test asks after a shell.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    for (name, _) in std::env::vars_os() {
        let prefixes = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if name
            .to_str()
            .is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}
