//! Renders a trace as text.
//!
//! Pure.

use super::table::table;
use super::{mark, missing, pod_heading};
use crate::chain::State;
use crate::trace::{Fate, Flow, Trace};
use std::fmt::Write as _;

pub(super) fn text(trace: &Trace) -> String {
    let mut text = pod_heading(&trace.pod, trace.node.as_deref()) + "\n";
    if let Some(problem) = &trace.problem {
        let _ = writeln!(text, "\n{} {problem}", mark(State::Broken));
    }
    trace.flows.iter().for_each(|flow| text.push_str(&one(flow)));
    let _ = writeln!(text, "\n{}", trace.applied);
    text.push_str(&missing(&trace.read_errors));
    text
}

fn one(flow: &Flow) -> String {
    let state = match (flow.is_well, flow.fate) {
        (true, _) => State::Good,
        (false, Fate::Unknown) => State::Unknown,
        (false, _) => State::Broken,
    };
    let fate = match flow.fate {
        Fate::Translated => "translated",
        Fate::Rejected => "rejected at once, in the pod",
        Fate::Passed => "met by no rule",
        Fate::Unknown => "not known",
    };
    let service = flow
        .service
        .as_ref()
        .map(|service| format!(" (Service {service})"))
        .unwrap_or_default();
    let mut text = format!("\n{} {}{service}: {fate}\n", mark(state), flow.destination);
    let mut below = |title: &str, value: &str| _ = writeln!(text, "  {title:<9} {value}");
    if let Some(why) = &flow.why {
        below("why", why);
    }
    if let Some(route) = &flow.route {
        below("route", route);
    }
    if let Some(source) = &flow.source {
        below("source", &format!("{source} is what the endpoint sees"));
    }
    if let Some(seconds) = flow.affinity_seconds {
        below(
            "affinity",
            &format!("a client stays with its endpoint for {seconds} s after its last flow"),
        );
    }
    flow.differences
        .iter()
        .for_each(|difference| below("differs", difference));
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows = flow.endpoints.iter().map(|one| {
        vec![
            one.address.clone(),
            format!("1/{}", one.one_in),
            or_none(&one.pod),
            or_none(&one.node),
        ]
    });
    if !flow.endpoints.is_empty() {
        for line in table(&["ENDPOINT", "CHANCE", "POD", "NODE"], rows).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}
