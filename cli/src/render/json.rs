//! Renders explanations and traces as JSON values. Field names are an interface and must not change.
//!
//! Pure.

use crate::chain::State;
use crate::explain::Explanation;
use crate::facts::{PodRules, ReadError};
use crate::trace::Trace;
use serde_json::{Value, json};

pub(super) fn explanation(explanation: &Explanation) -> Value {
    json!({
        "service": explanation.service.to_string(),
        "from": explanation.from.as_ref().map(ToString::to_string),
        "verdict": verdict(explanation.chain.state()),
        "cause": explanation.cause(),
        "links": explanation.chain.links,
        "notRead": not_read(&explanation.read_errors),
    })
}

pub(super) fn trace(trace: &Trace) -> Value {
    json!({
        "pod": trace.pod.to_string(),
        "node": trace.node,
        "flows": trace.flows,
        "problem": trace.problem,
        "applied": trace.applied,
        "notRead": not_read(&trace.read_errors),
    })
}

pub(super) fn pod_rules(report: &PodRules) -> Value {
    let applied = report.applied.as_ref();
    json!({
        "pod": report.pod.to_string(),
        "node": report.node,
        "proxy": applied.ok().map(|applied| &applied.proxy),
        "rules": applied.ok().map(|applied| &applied.rules),
        "problem": applied.err().map(ToString::to_string),
    })
}

fn verdict(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Warning => "warning",
        State::Unknown => "unknown",
        State::Broken => "broken",
    }
}

fn not_read(read_errors: &[ReadError]) -> Vec<String> {
    read_errors.iter().map(ToString::to_string).collect()
}
