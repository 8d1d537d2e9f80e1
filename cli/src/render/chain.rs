//! Renders an explanation as text.
//!
//! Pure.

use super::{bold, mark, missing, painted};
use crate::chain::{Link, State, Topic};
use crate::explain::Explanation;
use std::fmt::Write as _;

/// Column of statements.
const INDENT: usize = 15;

pub(super) fn text(explanation: &Explanation) -> String {
    let mut text = bold(&format!("Service {}", explanation.service));
    if let Some(from) = &explanation.from {
        let _ = write!(text, " from pod {from}");
    }
    text.push_str("\n\n");
    for link in &explanation.chain.links {
        text.push_str(&one(link));
    }
    text.push_str(&end(explanation));
    text.push_str(&missing(&explanation.read_errors));
    text
}

fn one(link: &Link) -> String {
    let mut text = format!("{} {:<12} {}\n", mark(link.state), link.topic.as_str(), link.says);
    let mut below = |line: &str| _ = writeln!(text, "{:INDENT$}{line}", "");
    link.details.iter().for_each(|detail| below(detail));
    if let Some(remedy) = &link.remedy {
        below(&format!("→ {}", remedy.text));
        remedy
            .commands
            .iter()
            .for_each(|command| below(&format!("  $ {command}")));
    }
    text
}

fn end(explanation: &Explanation) -> String {
    let chain = &explanation.chain;
    if let Some(link) = chain.broken() {
        let cause = link
            .cause
            .map(crate::situations::Cause::as_str)
            .unwrap_or_default();
        let rest: Vec<&str> = Topic::ALL
            .iter()
            .filter(|topic| **topic > link.topic)
            .map(|topic| topic.as_str())
            .collect();
        let rest = if rest.is_empty() {
            String::new()
        } else {
            format!("; not looked at: {}", rest.join(", "))
        };
        let verdict = format!("broken at {}: {cause}", link.topic.as_str());
        return format!("\n{}{rest}\n", painted(State::Broken, &verdict));
    }
    let verdict = match chain.state() {
        State::Good => "nothing is wrong",
        State::Warning => "it works, with warnings",
        State::Unknown => "nothing that could be read is wrong",
        State::Broken => "broken",
    };
    let hint = if explanation.from.is_none() {
        "; add --from pod/CLIENT to look from a client's side"
    } else {
        ""
    };
    format!("\n{}{hint}\n", painted(chain.state(), verdict))
}
