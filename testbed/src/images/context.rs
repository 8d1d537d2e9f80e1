//! The folder an image is built from, and the key of what is in it.

use crate::{command, tools};
use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A build context: files in a temporary folder of the cache's disk, so that large ones are linked and not copied.
#[derive(Debug)]
pub struct Context(TempDir);

impl Context {
    /// An empty context. Its folder is removed with it.
    pub fn new() -> Result<Self> {
        let parent = tools::cache()?.join("images");
        fs::create_dir_all(&parent)?;
        Ok(Self(TempDir::with_prefix_in("context-", parent)?))
    }

    /// Adds a file under its own name.
    pub fn with(self, file: &Path) -> Result<Self> {
        let name = file.file_name().context("a build context takes files")?;
        let target = self.path().join(name);
        fs::hard_link(file, &target)
            .or_else(|_| fs::copy(file, &target).map(drop))
            .with_context(|| format!("cannot add {} to an image", file.display()))?;
        Ok(self)
    }

    /// Adds what is in a folder, its folders included.
    pub fn with_folder(self, folder: &Path) -> Result<Self> {
        let content = folder.join(".");
        command::run("cp", &["--recursive".as_ref(), content.as_path(), self.path()])?;
        Ok(self)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Twelve hex digits over names and contents, and `more`.
    pub(super) fn key(&self, more: &str) -> Result<String> {
        let mut files = fs::read_dir(self.path())?.collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(fs::DirEntry::file_name);
        let mut hash = Sha256::new();
        for file in files {
            hash.update(file.file_name().as_encoded_bytes());
            hash.update(Sha256::digest(fs::read(file.path())?));
        }
        hash.update(more);
        Ok(tools::hex(&hash.finalize()[..6]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_names_contents_and_arguments() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = scratch.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let key = |name: &str, text: &str, more: &str| {
            let directory = tempfile::tempdir().unwrap();
            Context(directory)
                .with(&write(name, text))
                .unwrap()
                .key(more)
                .unwrap()
        };
        let first = key("a", "1", "");
        assert_eq!(first, key("a", "1", ""));
        assert_ne!(first, key("a", "2", ""));
        assert_ne!(first, key("b", "1", ""));
        assert_ne!(first, key("a", "1", "x"));
    }
}
