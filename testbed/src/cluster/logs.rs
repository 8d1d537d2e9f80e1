//! `cluster logs`: which logs there are, and where.
//!
//! Writes: nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::layout::state;

/// The log of a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Log {
    /// `machine/part`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// All logs, by name.
pub fn all() -> Result<Vec<Log>> {
    let root = state().join("logs");
    let mut logs = Vec::new();
    for machine in entries(&root)? {
        for path in entries(&machine)? {
            if path.extension().is_some_and(|extension| extension == "log") {
                let name = path.strip_prefix(&root)?.with_extension("").display().to_string();
                logs.push(Log { name, path });
            }
        }
    }
    logs.sort();
    Ok(logs)
}

/// The log called `name`: `node1/kubelet`, or `etcd` when only one machine has such a part.
pub fn find(name: &str) -> Result<Log> {
    pick(all()?, name)
}

fn pick(logs: Vec<Log>, name: &str) -> Result<Log> {
    let names: Vec<_> = logs.iter().map(|log| log.name.clone()).collect();
    let matches = |log: &Log| log.name == name || log.name.ends_with(&format!("/{name}"));
    let mut found: Vec<_> = logs.into_iter().filter(matches).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => bail!("there is no log {name:?}; there are: {}", names.join(" ")),
        _ => bail!(
            "{name:?} is one of: {}",
            found.iter().map(|log| &*log.name).collect::<Vec<_>>().join(" ")
        ),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir)
        .with_context(|| format!("there are no logs in {}; is there a cluster?", dir.display()))?;
    listed.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_two_machines_needs_the_machines_name() {
        let logs = || {
            let names = ["control/etcd", "node1/kubelet", "node2/kubelet"];
            names
                .map(|name| Log {
                    name: name.to_owned(),
                    path: PathBuf::new(),
                })
                .to_vec()
        };
        assert_eq!(pick(logs(), "etcd").unwrap().name, "control/etcd");
        assert_eq!(pick(logs(), "node2/kubelet").unwrap().name, "node2/kubelet");
        let error = pick(logs(), "kubelet").unwrap_err().to_string();
        assert_eq!(error, "\"kubelet\" is one of: node1/kubelet node2/kubelet");
        assert!(
            pick(logs(), "let")
                .unwrap_err()
                .to_string()
                .starts_with("there is no log")
        );
    }
}
