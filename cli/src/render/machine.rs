//! Explanations and traces as values for scripts. Names here are an interface: none is renamed.

use crate::chain::State;
use crate::explain::Explanation;
use crate::facts::Lack;
use crate::trace::Trace;
use serde_json::{Value, json};

pub(super) fn explanation(explanation: &Explanation) -> Value {
    json!({
        "service": explanation.service.to_string(),
        "from": explanation.from.as_ref().map(ToString::to_string),
        "verdict": verdict(explanation.chain.state()),
        "cause": explanation.cause(),
        "links": explanation.chain.links,
        "notRead": not_read(&explanation.lacks),
    })
}

pub(super) fn trace(trace: &Trace) -> Value {
    json!({
        "pod": trace.pod.to_string(),
        "node": trace.node,
        "flows": trace.flows,
        "problem": trace.problem,
        "applied": trace.applied,
        "notRead": not_read(&trace.lacks),
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

fn not_read(lacks: &[Lack]) -> Vec<String> {
    lacks.iter().map(ToString::to_string).collect()
}
