//! The files of a bug report, of bounded size.
//!
//! Writes: a folder.

use super::{Error, Gathered};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A folder that takes files up to a size; it notes what it did not take.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    left: u64,
    gathered: Gathered,
}

impl Folder {
    /// Creates the folder, for its owner alone, or takes an empty one.
    ///
    /// # Errors
    /// It cannot be created, or is not empty.
    pub fn create(path: &Path, max_size: u64) -> Result<Self, Error> {
        let failed = |source| write_error(path, source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        if fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(Error::NotEmpty(path.display().to_string()));
        }
        Ok(Self {
            path: path.to_owned(),
            left: max_size,
            gathered: Gathered {
                folder: path.to_owned(),
                files: 0,
                bytes: 0,
                missing: Vec::new(),
            },
        })
    }

    /// Writes a file below the folder, with the folders above it. A file that is too large is noted instead.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, name: &str, content: &str) -> Result<(), Error> {
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(size) else {
            self.miss(format!("{name}: {size} bytes are beyond --max-size"));
            return Ok(());
        };
        let path = self.path.join(name);
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).map_err(|source| write_error(folder, source))?;
        // Never through a link that somebody else put there.
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(|source| write_error(&path, source))?;
        self.left = left;
        self.gathered.files += 1;
        self.gathered.bytes += size;
        Ok(())
    }

    /// Notes what is missing.
    pub fn miss(&mut self, what: String) {
        if !self.gathered.missing.contains(&what) {
            self.gathered.missing.push(what);
        }
    }

    /// Writes the list of what is missing, however full the folder is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<Gathered, Error> {
        let mut list = self.gathered.missing.join("\n");
        if !list.is_empty() {
            list.push('\n');
            self.left = u64::MAX;
            self.write("not-gathered.txt", &list)?;
        }
        Ok(self.gathered)
    }
}

fn write_error(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_the_size_is_listed_and_smaller_ones_are_written() {
        let path = std::env::temp_dir().join(format!("must-gather-{}", std::process::id()));
        let mut folder = Folder::create(&path, 10).unwrap();
        folder.write("a/one", "12345678").unwrap();
        folder.write("a/two", "too large").unwrap();
        folder.write("three", "12").unwrap();
        folder.miss("no permission".to_owned());
        folder.miss("no permission".to_owned());
        let gathered = folder.finish().unwrap();
        let list = "a/two: 9 bytes are beyond --max-size\nno permission\n";
        assert_eq!(fs::read_to_string(path.join("not-gathered.txt")).unwrap(), list);
        assert_eq!(fs::read_to_string(path.join("a/one")).unwrap(), "12345678");
        assert!(!path.join("a/two").exists());
        assert_eq!((gathered.files, gathered.missing.len()), (3, 2));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
        let again = Folder::create(&path, 10).unwrap_err().to_string();
        assert!(again.contains("is not empty; choose another folder"), "{again}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
        let error = Folder::create(Path::new("/proc/none"), 10)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/proc/none") && error.contains("--dest-dir"),
            "{error}"
        );
    }
}
