//! Renders the status as text.
//!
//! Pure.

use super::table::table;
use super::{bold, mark, painted};
use crate::chain::State;
use crate::status::Status;
use std::fmt::Write as _;

/// Maximum number of lines per section: the status fits one screen.
const LINES: usize = 20;

pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    lines(&mut text, State::Broken, &status.problems);
    lines(&mut text, State::Warning, &status.warnings);
    if status.problems.is_empty() && status.warnings.is_empty() {
        let _ = writeln!(text, "{} nothing is wrong", mark(State::Good));
    }
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let _ = writeln!(
        text,
        "\n{}\nManagement: {}   Operands: {}   Operator: {}\nController: {}\nServices:   {}",
        bold("Installation"),
        or_unknown(&status.management_state),
        or_unknown(&status.version),
        or_unknown(&status.operator_version),
        status.controller,
        status.service_count,
    );
    let nodes = status.nodes.iter().map(|node| {
        let state = if node.problem.is_some() { "problem" } else { "ok" };
        vec![
            node.node.clone(),
            node.backend.clone(),
            yes(node.is_ready),
            state.to_owned(),
            node.proxy.clone(),
        ]
    });
    section(
        &mut text,
        "Nodes",
        &["NODE", "BACKEND", "READY", "RULES", "PROXY"],
        nodes.collect(),
    );
    let networks = status.networks.iter().map(|network| {
        let exists = network.exists.map_or_else(|| "?".to_owned(), yes);
        vec![
            network.network.clone(),
            exists,
            network.services.to_string(),
            network.clients.to_string(),
        ]
    });
    section(
        &mut text,
        "Networks",
        &["NETWORK", "EXISTS", "SERVICES", "ATTACHED PODS"],
        networks.collect(),
    );
    if !status.missing.is_empty() {
        let _ = writeln!(text, "\nNot read:\n  {}", status.missing.join("\n  "));
    }
    text
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

fn lines(text: &mut String, state: State, all: &[String]) {
    for line in all.iter().take(LINES) {
        let _ = writeln!(text, "{} {line}", mark(state));
    }
    if all.len() > LINES {
        let more = format!("and {} more: -o yaml shows all", all.len() - LINES);
        let _ = writeln!(text, "  {}", painted(state, &more));
    }
}

fn section(text: &mut String, title: &str, header: &[&str], mut rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let more = rows.len().saturating_sub(LINES);
    rows.truncate(LINES);
    let _ = write!(text, "\n{}\n{}", bold(title), table(header, rows));
    if more > 0 {
        let _ = writeln!(text, "and {more} more: -o yaml shows all");
    }
}
