//! The images of a release, as OCI archives whose digests do not depend on the registry.
//!
//! Writes: the cache, and one archive an image.

use super::{Profile, product};
use anyhow::Result;
use chrono::{DateTime, Utc};
use std::path::{Path, PathBuf};
use testbed::debian;
use testbed::images::{Builder, Context, PACKAGES, base};

/// Labels of a release's images.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The version.
    pub version: String,
    /// The commit.
    pub revision: String,
    /// Time of the commit: equal commits give equal images.
    pub created: DateTime<Utc>,
}

/// An image in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Such as `proxy`.
    pub name: String,
    /// `<name>.oci.tar`.
    pub archive: PathBuf,
    /// `sha256:...`, of the manifest.
    pub digest: String,
}

/// Builds the images of the product into `folder`.
pub fn product(
    profile: Profile,
    labels: &Labels,
    folder: &Path,
    say: &dyn Fn(&str),
) -> Result<Vec<Archived>> {
    debian::ensure(PACKAGES, say)?;
    let binaries = product::binaries(profile, Some(&labels.revision), say)?;
    let builder = Builder::new()?;
    let base = base::ensure(&builder, say)?;
    let arguments = [
        ("BASE", base.as_str()),
        ("VERSION", &labels.version),
        ("REVISION", &labels.revision),
    ];
    product::PRODUCTS
        .iter()
        .map(|product| {
            let context = product::context(&binaries, product)?;
            archive(&builder, &context, &arguments, product.image, labels, folder)
        })
        .collect()
}

/// Builds the image of a bundle's folder.
pub fn bundle(source: &Path, labels: &Labels, folder: &Path) -> Result<Archived> {
    let context = Context::new()?.with_folder(source)?;
    std::fs::rename(
        context.path().join("bundle.Dockerfile"),
        context.path().join("Containerfile"),
    )?;
    archive(&Builder::new()?, &context, &[], "bundle", labels, folder)
}

fn archive(
    builder: &Builder,
    context: &Context,
    arguments: &[(&str, &str)],
    name: &str,
    labels: &Labels,
    folder: &Path,
) -> Result<Archived> {
    let is_product = product::PRODUCTS.iter().any(|product| product.image == name);
    let target = is_product.then_some(name);
    let tag = format!("localhost/multus-service-release/{name}:{}", labels.version);
    builder.bud_at(&tag, context, arguments, target, Some(labels.created))?;
    let archive = folder.join(format!("{name}.oci.tar"));
    let digest = builder.oci_archive(&tag, &archive)?;
    Ok(Archived {
        name: name.to_owned(),
        archive,
        digest,
    })
}
