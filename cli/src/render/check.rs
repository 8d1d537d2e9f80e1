//! Renders a check as text.
//!
//! Pure.

use super::{bold, mark, painted};
use crate::chain::State;
use crate::check::Check;
use std::fmt::Write as _;

pub(super) fn text(check: &Check) -> String {
    let mut text = String::new();
    let mut group = "";
    for line in &check.lines {
        if line.group != group {
            group = line.group;
            let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, bold(group));
        }
        let _ = writeln!(text, "{} {}", mark(line.state), line.says);
        if let Some(remedy) = &line.remedy {
            let _ = writeln!(text, "  → {remedy}");
        }
    }
    let count = check.broken().count();
    let (state, verdict) = match (count, check.is_installed) {
        (0, Some(false)) => (
            State::Good,
            "the cluster has what an installation needs".to_owned(),
        ),
        (0, _) => (State::Good, "nothing is wrong".to_owned()),
        (1, _) => (State::Broken, "1 thing is wrong".to_owned()),
        (count, _) => (State::Broken, format!("{count} things are wrong")),
    };
    let _ = writeln!(text, "\n{}", painted(state, &verdict));
    text
}
