//! buildah, with its storage in the cache.

use super::{Context, Image};
use crate::{command, tools};
use anyhow::Result;
use chrono::{DateTime, Utc};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Builds images and writes them as archives.
#[derive(Debug)]
pub struct Builder {
    storage: PathBuf,
    archives: PathBuf,
}

impl Builder {
    /// Opens the storage in the cache.
    pub fn new() -> Result<Self> {
        let cache = tools::cache()?;
        let builder = Self {
            storage: cache.join("buildah"),
            archives: cache.join("images"),
        };
        fs::create_dir_all(&builder.archives)?;
        Ok(builder)
    }

    /// Folder of archives.
    pub(super) fn archives(&self) -> &PathBuf {
        &self.archives
    }

    /// The image `name` from `context`, built unless an archive of the same content is there. A name without a tag gets the
    /// content's key as tag, so that a changed image is another image to Kubernetes.
    pub fn build(
        &self,
        name: &str,
        context: &Context,
        arguments: &[(&str, &str)],
        target: Option<&str>,
        say: &dyn Fn(&str),
    ) -> Result<Image> {
        let key = context.key(&format!("{name} {arguments:?} {target:?}"))?;
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let name = if has_tag {
            name.to_owned()
        } else {
            format!("{name}:{key}")
        };
        let file = format!("{}-{key}.tar", name.replace(['/', ':'], "-"));
        let image = Image {
            name,
            archive: self.archives.join(file),
        };
        if !image.archive.exists() {
            let started = Instant::now();
            self.bud(&image.name, context, arguments, target)?;
            self.archive(&image)?;
            say(&format!(
                "image {}: built in {:.0?}",
                image.name,
                started.elapsed()
            ));
        }
        Ok(image)
    }

    /// Like [`Builder::build`], for an image that only others are built on: kept in buildah's storage, without an archive.
    pub(super) fn build_base(&self, name: &str, context: &Context, say: &dyn Fn(&str)) -> Result<String> {
        let name = format!("{name}:{}", context.key(name)?);
        let stored = command::output(self.buildah("inspect").args(["--type", "image"]).arg(&name)).is_ok();
        if !stored {
            let started = Instant::now();
            self.bud(&name, context, &[], None)?;
            say(&format!("image {name}: built in {:.0?}", started.elapsed()));
        }
        Ok(name)
    }

    fn bud(
        &self,
        name: &str,
        context: &Context,
        arguments: &[(&str, &str)],
        target: Option<&str>,
    ) -> Result<()> {
        self.bud_with(name, context, arguments, target, &[])
    }

    /// Builds `name` for an architecture. Everything in it is of one time, so that equal contents give equal digests.
    pub fn bud_at(
        &self,
        name: &str,
        context: &Context,
        arguments: &[(&str, &str)],
        target: Option<&str>,
        (architecture, time): (&str, DateTime<Utc>),
    ) -> Result<()> {
        let time = time.timestamp().to_string();
        let options = ["--format", "oci", "--arch", architecture, "--timestamp", &time];
        self.bud_with(name, context, arguments, target, &options)
    }

    fn bud_with(
        &self,
        name: &str,
        context: &Context,
        arguments: &[(&str, &str)],
        target: Option<&str>,
        options: &[&str],
    ) -> Result<()> {
        let mut buildah = self.buildah("build-using-dockerfile");
        buildah.args(options);
        buildah.args(["--layers", "--pull-never", "--tag", name, "--file"]);
        buildah.arg(context.path().join("Containerfile"));
        for (name, value) in arguments {
            buildah.arg("--build-arg").arg(format!("{name}={value}"));
        }
        if let Some(target) = target {
            buildah.args(["--target", target]);
        }
        command::output(buildah.arg(context.path()))?;
        Ok(())
    }

    /// Renamed into place when complete: an archive that exists can be used.
    fn archive(&self, image: &Image) -> Result<()> {
        let partial = image.archive.with_extension("partial");
        let _ = fs::remove_file(&partial);
        let destination = format!("docker-archive:{}:{}", partial.display(), image.name);
        command::output(self.buildah("push").arg(&image.name).arg(destination))?;
        fs::rename(partial, &image.archive)?;
        Ok(())
    }

    /// Writes `name` as an OCI archive and returns its digest.
    pub fn oci_archive(&self, name: &str, archive: &Path) -> Result<String> {
        let digest = tempfile::NamedTempFile::new()?;
        let mut push = self.buildah("push");
        push.arg("--digestfile")
            .arg(digest.path())
            .args(["--format", "oci", name]);
        command::output(push.arg(format!("oci-archive:{}", archive.display())))?;
        Ok(fs::read_to_string(digest.path())?.trim().to_owned())
    }

    /// Writes an index of images, one an architecture, as an OCI archive and returns the digest of the index.
    pub fn index_archive(&self, name: &str, images: &[String], archive: &Path) -> Result<String> {
        // One of an earlier build.
        let _ = command::output(self.buildah("manifest").args(["rm", name]));
        command::output(self.buildah("manifest").args(["create", name]))?;
        for image in images {
            let image = format!("containers-storage:{image}");
            command::output(self.buildah("manifest").args(["add", name, &image]))?;
        }
        let digest = tempfile::NamedTempFile::new()?;
        let mut push = self.buildah("manifest");
        push.args(["push", "--all", "--format", "oci", "--digestfile"]);
        push.arg(digest.path()).arg(name);
        command::output(push.arg(format!("oci-archive:{}", archive.display())))?;
        Ok(fs::read_to_string(digest.path())?.trim().to_owned())
    }

    fn buildah(&self, subcommand: &str) -> Command {
        let mut buildah = Command::new("buildah");
        buildah
            .arg("--root")
            .arg(&self.storage)
            .args(["--runroot", "/run/multus-service-buildah"]);
        // chroot: a plain process without namespaces of its own; overlay: layers are mounted and not copied.
        buildah
            .args(["--storage-driver", "overlay", subcommand])
            .env("BUILDAH_ISOLATION", "chroot");
        buildah
    }
}
