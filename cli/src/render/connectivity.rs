//! Renders the results of `connectivity-test` as text.
//!
//! Pure.

use super::table::table;
use super::{bold, mark, painted};
use crate::chain::State;
use crate::connectivity::{Check, Connectivity, NetworkResult, NodeResult};
use std::fmt::Write as _;

pub(super) fn text(connectivity: &Connectivity) -> String {
    let mut text = results(connectivity);
    for network in &connectivity.networks {
        problems(&mut text, network);
    }
    for network in &connectivity.networks {
        if let Some(node) = network.only_node() {
            let (mark, name) = (mark(State::Warning), &network.network);
            let _ = writeln!(
                text,
                "\n{mark} network {name}: clients and servers were on node {node} alone, no packet crossed between nodes"
            );
        }
    }
    if !connectivity.nodes_without_proxy.is_empty() {
        let nodes = connectivity.nodes_without_proxy.join(", ");
        let _ = writeln!(
            text,
            "\n{} not tested, without a proxy: {nodes}",
            mark(State::Warning)
        );
    }
    let (state, verdict) = if connectivity.is_interrupted {
        (State::Broken, "interrupted")
    } else if connectivity.is_well() {
        (State::Good, "every check passed")
    } else {
        (State::Broken, "checks failed")
    };
    let _ = writeln!(text, "\n{}", painted(state, verdict));
    text.trim_start().to_owned()
}

fn results(connectivity: &Connectivity) -> String {
    let mut header = vec!["NETWORK".to_owned(), "NODE".to_owned()];
    header.extend(Check::ALL.map(|check| check.to_string()));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = connectivity.networks.iter().flat_map(|network| {
        network.nodes.iter().map(|node| {
            let mut row = vec![network.network.clone(), node.node.clone()];
            row.extend(Check::ALL.map(|check| cell(node, check).to_owned()));
            row
        })
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        String::new()
    } else {
        table(&header, rows)
    }
}

fn cell(node: &NodeResult, check: Check) -> &'static str {
    match node.passed(check) {
        Some(true) => "ok",
        Some(false) => "FAILED",
        None => "-",
    }
}

fn problems(text: &mut String, network: &NetworkResult) {
    let mut lines = Vec::new();
    lines.extend(network.problem.clone());
    for node in &network.nodes {
        lines.extend(
            node.problem
                .iter()
                .map(|problem| format!("{}: {problem}", node.node)),
        );
        for result in &node.checks {
            if let Some(problem) = &result.problem {
                let (check, to) = (result.check, &result.destination);
                lines.push(format!(
                    "{}: {check} {to}: {problem}\n  → {}",
                    node.node,
                    check.remedy()
                ));
            }
        }
    }
    lines.extend(network.left.clone());
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", bold(&format!("Network {}", network.network)));
    for line in lines {
        let _ = writeln!(text, "{} {line}", mark(State::Broken));
    }
}
