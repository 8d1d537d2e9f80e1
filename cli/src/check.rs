//! What the cluster has and lacks, before and after installation: one line each with a remedy, in groups.
//!
//! Pure.

mod cluster;
mod leftovers;
mod operands;

use crate::chain::State;
use crate::facts::{Installation, Lack};
use serde::Serialize;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What it is about.
    pub group: &'static str,
    /// How it is.
    pub state: State,
    /// What is so.
    pub says: String,
    /// What to do, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Line {
    fn good(group: &'static str, says: impl Into<String>) -> Self {
        Self {
            group,
            state: State::Good,
            says: says.into(),
            remedy: None,
        }
    }

    fn warning(group: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            remedy: Some(remedy.into()),
            ..Self::good(group, says)
        }
    }

    fn broken(group: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Broken,
            ..Self::warning(group, says, remedy)
        }
    }

    /// It cannot be looked at; the right that would do is the remedy.
    fn unknown(group: &'static str, what: &str, lack: &Lack) -> Self {
        let remedy = match lack {
            Lack::Forbidden(right) => Some(right.question()),
            _ => None,
        };
        Self {
            state: State::Unknown,
            remedy,
            ..Self::good(group, format!("{what}: {lack}"))
        }
    }
}

/// The lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Whether there is a configuration; none: not known.
    pub is_installed: Option<bool>,
    /// In groups.
    pub lines: Vec<Line>,
}

impl Check {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.lines.iter().all(|line| line.state != State::Broken)
    }

    /// Whether it is installed and nothing is wrong: what `--wait` waits for.
    pub fn is_done(&self) -> bool {
        self.is_installed == Some(true) && self.is_well()
    }

    /// What is wrong.
    pub fn broken(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.state == State::Broken)
    }
}

/// Looks at everything. Before installation only what an installation needs.
pub fn check(facts: &Installation) -> Check {
    let is_installed = facts.cluster.config.as_ref().ok().map(Option::is_some);
    let mut lines = vec![cluster::version(&facts.version)];
    lines.push(cluster::ranges(facts));
    lines.push(cluster::multus(facts));
    lines.extend(cluster::nodes(facts));
    lines.extend(leftovers::original(facts));
    if is_installed == Some(false) {
        let text = "MultusServiceConfig cluster does not exist: multus-service is not installed yet";
        lines.push(Line::warning(
            "installation",
            text,
            "kubectl apply -k config/default; kubectl apply -k config/samples",
        ));
    } else {
        lines.extend(operands::operands(facts));
        lines.extend(operands::services(facts));
    }
    Check { is_installed, lines }
}

#[cfg(test)]
mod tests;
