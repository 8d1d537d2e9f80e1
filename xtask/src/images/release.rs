//! The images of a release, as OCI archives whose digests do not depend on the registry.
//!
//! Writes: the cache, and one archive an image.

use super::product::{self, Product};
use super::{Profile, cross};
use anyhow::Result;
use chrono::{DateTime, Utc};
use std::path::{Path, PathBuf};
use testbed::debian;
use testbed::images::{Builder, Context, Mirrors, PACKAGES};

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
    /// `sha256:...`, of the manifest; of an image with several architectures, of its index.
    pub digest: String,
}

/// How the images of the product are built.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// Profile of the binaries.
    pub profile: Profile,
    /// Labels of the images.
    pub labels: &'a Labels,
    /// Mirrors of Debian with the current packages; `None`: those of the cache.
    pub mirrors: Option<&'a Mirrors>,
    /// Go's names of the architectures: `amd64`, `arm64`.
    pub architectures: &'a [String],
}

impl Build<'_> {
    /// Builds the images of the product into `folder`, each an index of its architectures.
    pub fn product(&self, folder: &Path, say: &dyn Fn(&str)) -> Result<Vec<Archived>> {
        debian::ensure(PACKAGES, say)?;
        let builder = Builder::new()?;
        let mut binaries = Vec::new();
        for architecture in self.architectures {
            let folder = match architecture.as_str() {
                product::AMD64 => product::binaries(self.profile, Some(&self.labels.revision), say)?,
                _ => self.binaries_for_arm64(say)?,
            };
            binaries.push((architecture.as_str(), folder));
        }
        let images = product::PRODUCTS.iter().map(|product| {
            say(&format!("image {}: building", product.image));
            self.image(&builder, product, &binaries, folder, say)
        });
        images.collect()
    }

    fn binaries_for_arm64(&self, say: &dyn Fn(&str)) -> Result<PathBuf> {
        cross::ARM64.ensure(say)?;
        let commit = Some(self.labels.revision.as_str());
        product::binaries_for(self.profile, commit, Some(&cross::ARM64), say)
    }

    fn image(
        &self,
        builder: &Builder,
        product: &Product,
        binaries: &[(&str, PathBuf)],
        folder: &Path,
        say: &dyn Fn(&str),
    ) -> Result<Archived> {
        let Labels {
            version,
            revision,
            created,
        } = self.labels;
        let arguments = [("VERSION", version.as_str()), ("REVISION", revision)];
        let name = tag(product.image, version);
        let mut images = Vec::new();
        for (architecture, folder) in binaries {
            let rootfs = product.rootfs(architecture, self.mirrors).archive(builder, say)?;
            let context = product::context(&folder.join(product.binary), &rootfs)?;
            let image = format!("{name}-{architecture}");
            let at = (*architecture, *created);
            builder.bud_at(&image, &context, &arguments, Some(product.image), at)?;
            images.push(image);
        }
        let archive = folder.join(format!("{}.oci.tar", product.image));
        let digest = builder.index_archive(&format!("{name}-index"), &images, &archive)?;
        Ok(Archived {
            name: product.image.to_owned(),
            archive,
            digest,
        })
    }
}

/// Builds the image of a bundle's folder, which has no architecture: it holds YAML.
pub fn bundle(source: &Path, labels: &Labels, folder: &Path) -> Result<Archived> {
    let context = Context::new()?.with_folder(source)?;
    std::fs::rename(
        context.path().join("bundle.Dockerfile"),
        context.path().join("Containerfile"),
    )?;
    let (builder, tag) = (Builder::new()?, tag("bundle", &labels.version));
    builder.bud_at(&tag, &context, &[], None, (product::AMD64, labels.created))?;
    let archive = folder.join("bundle.oci.tar");
    let digest = builder.oci_archive(&tag, &archive)?;
    Ok(Archived {
        name: "bundle".to_owned(),
        archive,
        digest,
    })
}

fn tag(name: &str, version: &str) -> String {
    format!("localhost/multus-service-release/{name}:{version}")
}
