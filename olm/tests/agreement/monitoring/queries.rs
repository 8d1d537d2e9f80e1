//! The metrics that a `PromQL` query uses, and those that the binaries serve.
//!
//! Whether a query is valid is promtool's part (`xtask/tests/monitoring.rs`).

use super::root;
use std::collections::BTreeSet;

/// Followed by a list of labels.
const LABEL_LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const KEYWORDS: [&str; 9] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
];
/// Written by Prometheus itself.
const OF_PROMETHEUS: [&str; 2] = ["ALERTS", "up"];
/// The metrics that docs/reference/metrics.md names between backquotes.
pub(super) fn known_metrics() -> BTreeSet<String> {
    let is_metric = |name: &&str| name.starts_with("multus_service_") || name.starts_with("process_");
    let page = std::fs::read_to_string(root().join("docs/reference/metrics.md")).unwrap();
    // Labels may follow: `name{label}`.
    let of_page = page
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|code| code.split('{').next().unwrap_or_default());
    let mut known: BTreeSet<_> = of_page.filter(is_metric).map(str::to_owned).collect();
    assert!(known.len() > 20, "{known:?}");
    known.extend(OF_PROMETHEUS.map(str::to_owned));
    known
}

/// Those of `used` that are not `known`. A histogram has three series, a counter its suffix.
pub(super) fn unknown(used: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<String> {
    let suffixes = ["", "_bucket", "_count", "_sum", "_total"];
    let exists = |name: &&String| {
        let bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
        bases.into_iter().any(|base| known.contains(base))
    };
    used.iter().filter(|name| !exists(name)).cloned().collect()
}

fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// Identifiers of metrics: outside of strings, selectors, ranges and lists of labels, and neither function nor operator.
fn names(query: &str) -> Vec<&str> {
    let (mut names, mut rest, mut previous) = (Vec::new(), query, "");
    while let Some(first) = rest.chars().next() {
        let through = |last: char| rest[1..].find(last).map_or(rest.len(), |end| end + 2);
        let end = match first {
            '{' => through('}'),
            '[' => through(']'),
            '"' => through('"'),
            '(' if LABEL_LISTS.contains(&previous) => through(')'),
            letter if in_name(letter) => rest.find(|letter| !in_name(letter)).unwrap_or(rest.len()),
            letter => letter.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        let next = after.trim_start();
        let is_function = ["(", "by ", "without "].iter().any(|call| next.starts_with(call));
        if in_name(first) && !first.is_ascii_digit() && !is_function && !KEYWORDS.contains(&token) {
            names.push(token);
        }
        if !first.is_whitespace() {
            previous = token;
        }
        rest = after;
    }
    names
}

/// The metrics that a query selects.
pub(super) fn metrics(query: &str) -> BTreeSet<String> {
    names(query).into_iter().map(str::to_owned).collect()
}

/// The metrics that a query reads at one instant, not over a range.
pub(super) fn instant_selectors(query: &str) -> Vec<String> {
    let metrics = metrics(query).into_iter();
    let is_instant = |name: &String| {
        query.match_indices(name.as_str()).any(|(start, _)| {
            let after = &query[start + name.len()..];
            let after = after
                .strip_prefix('{')
                .and_then(|labels| labels.split_once('}'))
                .map_or(after, |(_, after)| after);
            !after.starts_with('[') && !after.starts_with(in_name)
        })
    };
    metrics.filter(is_instant).collect()
}

#[test]
fn metrics_of_a_query_are_found() {
    let query = r#"sum by (node, le) (rate(a_bucket{x="y"}[5m])) > on (job) group_left () b or 3 * c unless vector(0)"#;
    assert_eq!(metrics(query), ["a_bucket", "b", "c"].map(str::to_owned).into());
    assert_eq!(instant_selectors("max(up[5m]) + upper{x=\"y\"}"), ["upper"]);
    let known = ["a", "b"].map(str::to_owned).into();
    assert_eq!(
        unknown(&metrics("a_bucket + b_sum + c_total"), &known),
        ["c_total"]
    );
}
