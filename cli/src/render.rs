//! Reports as text for people, as JSON or YAML for scripts.
//!
//! Pure. Text carries its colours as escape sequences; the writer removes them where they are not wanted.

mod chain;
mod checks;
mod machine;
mod screen;
mod table;
mod traces;

use crate::chain::State;
use crate::check::Check;
use crate::explain::Explanation;
use crate::status::Status;
use crate::trace::Trace;
use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// How a command ends, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong: 0.
    Well,
    /// Something is wrong: 1.
    NotWell,
    /// What was asked for could not be read: 2, as wrong usage.
    NoAccess,
}

impl Outcome {
    /// The exit code.
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

/// What every command makes.
pub trait Report {
    /// How it ends.
    fn outcome(&self) -> Outcome;
    /// For people.
    fn text(&self) -> String;
    /// For scripts.
    fn value(&self) -> Value;
}

impl Report for Explanation {
    fn outcome(&self) -> Outcome {
        // Of a chain that could not even begin nothing is known.
        match self.chain.links.as_slice() {
            [only] if only.state == State::Unknown => Outcome::NoAccess,
            _ => Outcome::of(self.is_well()),
        }
    }

    fn text(&self) -> String {
        chain::text(self)
    }

    fn value(&self) -> Value {
        machine::explanation(self)
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
        traces::text(self)
    }

    fn value(&self) -> Value {
        machine::trace(self)
    }
}

impl Report for Status {
    fn outcome(&self) -> Outcome {
        Outcome::of(self.is_well())
    }

    fn text(&self) -> String {
        screen::text(self)
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
        checks::text(self)
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// `text` in the colour of a state.
fn painted(state: State, text: &str) -> String {
    let colour = match state {
        State::Good => AnsiColor::Green,
        State::Warning | State::Unknown => AnsiColor::Yellow,
        State::Broken => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

fn bold(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// The mark of a state, one column wide.
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

/// What could not be read, with the command that shows the missing right.
fn missing(lacks: &[crate::facts::Lack]) -> String {
    use crate::facts::Lack;
    let line = |lack: &Lack| match lack {
        Lack::Forbidden(right) => format!("  {lack} ({})\n", right.question()),
        _ => format!("  {lack}\n"),
    };
    if lacks.is_empty() {
        return String::new();
    }
    format!("\nNot read:\n{}", lacks.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests;
