//! The container runtimes a node can have, behind one enum.
//!
//! Pure but for a look at what this machine can do (`means`): configuration files and command lines as values.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::tools::{self, Tool, ToolDir};

mod containerd;
mod crio;
mod limits;

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// containerd 1.6, Debian's package.
    Containerd1,
    /// containerd 2.
    Containerd2,
    /// CRI-O, the runtime of OpenShift.
    Crio,
}

/// A configuration file: its name in the node's folder `etc`, its content, whether it is a program.
pub(super) struct ConfigFile {
    pub(super) name: &'static str,
    pub(super) content: String,
    pub(super) executable: bool,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Containerd1, Self::Containerd2, Self::Crio];

    /// The name of its part, its log and its cgroup.
    pub(super) fn part(self) -> &'static str {
        match self {
            Self::Containerd1 | Self::Containerd2 => "containerd",
            Self::Crio => "crio",
        }
    }

    /// Its CRI socket, where every node has it.
    pub(super) fn socket(self) -> &'static str {
        match self {
            Self::Containerd1 | Self::Containerd2 => "/run/containerd/containerd.sock",
            Self::Crio => "/run/crio/crio.sock",
        }
    }

    /// Debian packages it needs.
    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Containerd1 => &["containerd", "runc"],
            Self::Containerd2 => &["runc"],
            Self::Crio => &["runc", "conmon", "skopeo", "jq", "libseccomp2"],
        }
    }

    /// The tool it is built from.
    pub(super) fn tool(self) -> Option<&'static Tool> {
        match self {
            Self::Containerd1 => None,
            Self::Containerd2 => Some(&tools::CONTAINERD2),
            Self::Crio => Some(&tools::CRIO),
        }
    }

    /// The folder with its programs, when they are not the system's.
    pub(super) fn path(self, tools: &ToolDir) -> Result<Option<PathBuf>> {
        self.tool()
            .map(|tool| tools.dir(tool).map(Path::to_owned))
            .transpose()
    }

    /// Its configuration, given the node's folder `etc`.
    pub(super) fn config(self, tools: &ToolDir, etc: &Path) -> Result<Vec<ConfigFile>> {
        let missing = limits::Missing::look();
        Ok(match self {
            Self::Containerd1 => vec![containerd::version_1(missing)],
            Self::Containerd2 => vec![containerd::version_2(missing)],
            Self::Crio => crio::config(&tools.program(&tools::CRIO, "pinns")?, etc, missing),
        })
    }

    /// The command that runs it.
    pub(super) fn command(self, tools: &ToolDir, etc: &Path) -> Result<Vec<String>> {
        let program = match self {
            Self::Containerd1 => PathBuf::from("/usr/bin/containerd"),
            Self::Containerd2 => tools.program(&tools::CONTAINERD2, "containerd")?,
            Self::Crio => tools.main(&tools::CRIO)?,
        };
        let config = match self {
            Self::Containerd1 | Self::Containerd2 => containerd::FILE,
            Self::Crio => crio::FILE,
        };
        let mut command = vec![
            program.display().to_string(),
            "--config".to_owned(),
            etc.join(config).display().to_string(),
        ];
        if self == Self::Crio {
            // Nothing of the machine's own configuration may change the node.
            command.extend([
                "--config-dir".to_owned(),
                etc.join("crio.conf.d").display().to_string(),
            ]);
        }
        Ok(command)
    }

    /// The command that loads a docker-archive under its name.
    pub(super) fn load(self, tools: &ToolDir, archive: &Path, name: &str) -> Result<Vec<String>> {
        let archive = archive.display().to_string();
        let ctr = match self {
            Self::Containerd1 => "/usr/bin/ctr".to_owned(),
            Self::Containerd2 => tools.program(&tools::CONTAINERD2, "ctr")?.display().to_string(),
            Self::Crio => return Ok(crio::load(&archive, name)),
        };
        Ok([
            &ctr,
            "--address",
            self.socket(),
            "--namespace",
            "k8s.io",
            "images",
            "import",
            &archive,
        ]
        .map(str::to_owned)
        .into())
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Containerd1 => "containerd1",
            Self::Containerd2 => "containerd2",
            Self::Crio => "crio",
        })
    }
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|runtime| runtime.to_string() == text);
        known.ok_or_else(|| format!("runtime {text:?} is not one of containerd1, containerd2, crio"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for runtime in Runtime::ALL {
            assert_eq!(runtime.to_string().parse(), Ok(runtime));
        }
        assert!("docker".parse::<Runtime>().unwrap_err().contains("docker"));
    }
}
