//! Renders reports as text, JSON or YAML.
//!
//! Pure. Text has colors as escape sequences; the writer removes them where they are disabled.

mod chain;
mod check;
mod connectivity;
mod json;
mod rules;
mod status;
mod table;
mod trace;

use crate::chain::State;
use crate::check::Check;
use crate::connectivity::Connectivity;
use crate::explain::Explanation;
use crate::facts::PodRules;
use crate::must_gather::Gathered;
use crate::status::Status;
use crate::trace::Trace;
use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// Exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No problem: 0.
    Well,
    /// A problem: 1.
    NotWell,
    /// The requested object could not be read: 2, as for invalid usage.
    NoAccess,
}

impl Outcome {
    /// Returns the exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::NotWell => 1,
            Self::NoAccess => 2,
        }
    }

    fn of(is_well: bool) -> Self {
        if is_well { Self::Well } else { Self::NotWell }
    }
}

/// Report of a command.
pub trait Report {
    /// Returns the exit code.
    fn outcome(&self) -> Outcome;
    /// Renders text.
    fn text(&self) -> String;
    /// Renders a value for JSON and YAML.
    fn value(&self) -> Value;
}

impl Report for Explanation {
    fn outcome(&self) -> Outcome {
        // The Service itself could not be read.
        match self.chain.links.as_slice() {
            [only] if only.state == State::Unknown => Outcome::NoAccess,
            _ => Outcome::of(self.is_well()),
        }
    }

    fn text(&self) -> String {
        chain::text(self)
    }

    fn value(&self) -> Value {
        json::explanation(self)
    }
}

impl Report for Trace {
    fn outcome(&self) -> Outcome {
        if self.no_access {
            Outcome::NoAccess
        } else {
            Outcome::of(self.is_well())
        }
    }

    fn text(&self) -> String {
        trace::text(self)
    }

    fn value(&self) -> Value {
        json::trace(self)
    }
}

impl Report for PodRules {
    fn outcome(&self) -> Outcome {
        match &self.applied {
            Ok(applied) => Outcome::of(applied.rules.damage.is_empty()),
            Err(_) => Outcome::NoAccess,
        }
    }

    fn text(&self) -> String {
        rules::text(self)
    }

    fn value(&self) -> Value {
        json::pod_rules(self)
    }
}

impl Report for Status {
    fn outcome(&self) -> Outcome {
        Outcome::of(self.is_well())
    }

    fn text(&self) -> String {
        status::text(self)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Report for Check {
    fn outcome(&self) -> Outcome {
        Outcome::of(self.is_well())
    }

    fn text(&self) -> String {
        check::text(self)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Report for Connectivity {
    fn outcome(&self) -> Outcome {
        Outcome::of(self.is_well())
    }

    fn text(&self) -> String {
        connectivity::text(self)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Report for Gathered {
    /// A report with gaps is what the user may read: no problem.
    fn outcome(&self) -> Outcome {
        Outcome::Well
    }

    fn text(&self) -> String {
        let missing = if self.missing.is_empty() {
            String::new()
        } else {
            format!("\nNot gathered:\n  {}\n", self.missing.join("\n  "))
        };
        format!(
            "{} files, {} KiB in {}\n{missing}",
            self.files,
            self.bytes.div_ceil(1024),
            self.folder.display()
        )
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Returns `text` in the color of a state.
fn painted(state: State, text: &str) -> String {
    let colour = match state {
        State::Good => AnsiColor::Green,
        State::Warning | State::Unknown => AnsiColor::Yellow,
        State::Broken => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// Returns the text without colors.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn bold(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// Returns the heading of a report about a pod, without the end of its line.
fn pod_heading(pod: &api::ObjectName, node: Option<&str>) -> String {
    let node = node.map(|node| format!(" on node {node}")).unwrap_or_default();
    format!("{}{node}", bold(&format!("Pod {pod}")))
}

/// Returns the mark of a state, one column wide.
fn mark(state: State) -> String {
    painted(
        state,
        match state {
            State::Good => "✓",
            State::Warning => "!",
            State::Unknown => "?",
            State::Broken => "✗",
        },
    )
}

/// Renders failed reads with the command that shows the missing permission.
fn missing(read_errors: &[crate::facts::ReadError]) -> String {
    use crate::facts::ReadError;
    let line = |read_error: &ReadError| match read_error {
        ReadError::Forbidden(right) => format!("  {read_error} ({})\n", right.question()),
        _ => format!("  {read_error}\n"),
    };
    if read_errors.is_empty() {
        return String::new();
    }
    format!(
        "\nNot read:\n{}",
        read_errors.iter().map(line).collect::<String>()
    )
}

#[cfg(test)]
mod tests;
