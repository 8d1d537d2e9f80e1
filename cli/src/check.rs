//! Checks of the cluster before and after installation: one line each with a remedy, in groups.
//!
//! Pure.

mod cluster;
mod legacy_proxy;
mod operands;

use crate::chain::State;
use crate::facts::{Installation, ReadError};
use serde::Serialize;

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub group: &'static str,
    pub state: State,
    /// Statement.
    pub says: String,
    /// Remedy, unless it is good.
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

    /// Returns a check that could not be made; the missing permission is the remedy.
    fn unknown(group: &'static str, what: &str, read_error: &ReadError) -> Self {
        let remedy = match read_error {
            ReadError::Forbidden(right) => Some(right.question()),
            _ => None,
        };
        Self {
            state: State::Unknown,
            remedy,
            ..Self::good(group, format!("{what}: {read_error}"))
        }
    }
}

/// Results of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Whether a configuration exists; `None`: not known.
    pub is_installed: Option<bool>,
    /// Results by group.
    pub lines: Vec<Line>,
}

impl Check {
    /// Whether there are no problems.
    pub fn is_well(&self) -> bool {
        self.lines.iter().all(|line| line.state != State::Broken)
    }

    /// Whether it is installed without problems, the condition of `--wait`.
    pub fn is_done(&self) -> bool {
        self.is_installed == Some(true) && self.is_well()
    }

    /// Returns the problems.
    pub fn broken(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.state == State::Broken)
    }
}

/// Makes all checks; before installation only those of requirements.
pub fn check(facts: &Installation) -> Check {
    let is_installed = facts.cluster.config.as_ref().ok().map(Option::is_some);
    let mut lines = vec![cluster::version(&facts.version)];
    lines.push(cluster::ranges(facts));
    lines.push(cluster::multus(facts));
    lines.extend(cluster::nodes(facts));
    lines.extend(legacy_proxy::legacy_proxy(facts));
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
