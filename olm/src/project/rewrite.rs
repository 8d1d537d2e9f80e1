//! Replaces the identity of a checkout in all its files.
//!
//! Reads and writes files; lists them with git.

use super::{FILE, Project};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tracked files that keep the names of their time.
const KEPT: [&str; 3] = ["olm/released/", "CHANGELOG.md", "Cargo.lock"];

/// A checkout that cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of its files is not available.
    #[error("failed to list the files of {path:?} with git: {reason}")]
    List {
        /// The checkout.
        path: PathBuf,
        /// Output of git.
        reason: String,
    },
    /// A file cannot be written.
    #[error("failed to write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Project {
    /// Replaces this identity by another in a text. A longer name that begins with one of its values is another name.
    pub fn replace(&self, other: &Self, text: &str) -> String {
        let pairs = [
            (&self.repository, &other.repository),
            (&self.registry, &other.registry),
            (&self.authors, &other.authors),
            (&self.email, &other.email),
        ];
        pairs
            .into_iter()
            .fold(text.to_owned(), |text, (old, new)| replace_name(&text, old, new))
    }

    /// The content of `project.yaml` with these values; its comments are those of `file`.
    fn written_to(&self, file: &str) -> String {
        let reviewers = serde_json::to_string(&self.reviewers).expect("strings are JSON");
        let fields = [
            ("repository: ", &self.repository),
            ("registry: ", &self.registry),
            ("authors: ", &self.authors),
            ("email: ", &self.email),
            ("reviewers: ", &reviewers),
        ];
        let line = |line: &str| match fields.iter().find(|(field, _)| line.starts_with(field)) {
            Some((field, value)) => format!("{field}{value}\n"),
            None => format!("{line}\n"),
        };
        file.lines().map(line).collect()
    }
}

fn replace_name(text: &str, old: &str, new: &str) -> String {
    let mut parts = text.split(old);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let goes_on = part.starts_with(|next: char| next.is_alphanumeric() || next == '-' || next == '_');
        replaced.push_str(if goes_on { old } else { new });
        replaced.push_str(part);
    }
    replaced
}

/// Text files of the checkout at `root` that git tracks or would track, but for those that keep the names of their time.
pub fn files(root: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let failed = |reason: String| Error::List {
        path: root.to_owned(),
        reason,
    };
    let output = git.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = names
        .split_terminator('\0')
        .filter(|name| !KEPT.iter().any(|kept| name.starts_with(kept)));
    // Neither pictures nor files that were just deleted.
    let read = |name: &str| Some((root.join(name), std::fs::read_to_string(root.join(name)).ok()?));
    Ok(ours.filter_map(read).collect())
}

/// Replaces the identity of the checkout at `root` in all its files. Generated files follow with `make bundle`.
pub fn rewrite(root: &Path, old: &Project, new: &Project) -> Result<(), Error> {
    let write = |path: PathBuf, content: String| {
        std::fs::write(&path, content).map_err(|source| Error::Write { path, source })
    };
    for (path, text) in files(root)? {
        let replaced = if path == root.join(FILE) {
            new.written_to(&text)
        } else {
            old.replace(new, &text)
        };
        if replaced != text {
            write(path, replaced)?;
        }
    }
    for (name, content) in new.reviewer_files() {
        write(root.join(name), content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Overrides;
    use crate::project::tests::project;

    #[test]
    fn only_whole_names_are_replaced() {
        let other = project().with(&Overrides {
            registry: Some("quay.io/team".to_owned()),
            ..Overrides::default()
        });
        let text = "registry.acme.io/net/proxy:v1 registry.acme.io/network/a oci://registry.acme.io/net security@acme.io";
        assert_eq!(
            project().replace(&other, text),
            "quay.io/team/proxy:v1 registry.acme.io/network/a oci://quay.io/team security@acme.io"
        );
    }

    #[test]
    fn the_file_keeps_its_comments() {
        let file = "# Who.\nemail: a@b.c\n# None.\nreviewers: []\n";
        let written = project().written_to(file);
        assert_eq!(
            written,
            "# Who.\nemail: security@acme.io\n# None.\nreviewers: [\"alice\"]\n"
        );
    }

    #[test]
    fn the_checkout_has_the_new_identity_but_for_what_was_released() {
        let checkout = tempfile::tempdir().unwrap();
        let root = checkout.path();
        let write = |name: &str, content: &[u8]| {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), content).unwrap();
        };
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let old = project();
        write(FILE, b"# Where.\nregistry: registry.acme.io/net\nreviewers: []\n");
        write("docs/a.md", b"registry.acme.io/net/proxy:v1");
        write(
            "olm/released/0.1.0/catalog.yaml",
            b"registry.acme.io/net/proxy:v1",
        );
        write("target/a", b"registry.acme.io/net/proxy:v1");
        write("a.png", b"registry.acme.io/net/proxy\xff");
        write(".gitignore", b"/target\n");
        write(".github/a", b"");
        let git = Command::new("git")
            .args(["init", "--quiet"])
            .current_dir(root)
            .status();
        assert!(git.unwrap().success());

        let new = old.with(&Overrides {
            registry: Some("quay.io/team".to_owned()),
            reviewers: vec!["bob".to_owned()],
            ..Overrides::default()
        });
        rewrite(root, &old, &new).unwrap();
        assert_eq!(
            read(FILE),
            "# Where.\nregistry: quay.io/team\nreviewers: [\"bob\"]\n"
        );
        assert_eq!(read("docs/a.md"), "quay.io/team/proxy:v1");
        for kept in ["olm/released/0.1.0/catalog.yaml", "target/a"] {
            assert_eq!(read(kept), "registry.acme.io/net/proxy:v1", "{kept}");
        }
        assert!(read("OWNERS").ends_with("reviewers:\n  - bob\n"));
        assert!(read(".github/CODEOWNERS").ends_with("\n* @bob\n"));
    }
}
