//! Alerts, their runbooks, the dashboard, and the metrics that exist.

use super::{documents, root};
use olm::dashboard::{config_map, dashboard, rows};
use olm::{Project, items, text};
use serde_json::Value;
use std::collections::BTreeSet;

#[path = "monitoring/queries.rs"]
mod queries;

const SECTIONS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

fn runbook(alert: &str) -> String {
    let repository = Project::read(&root()).unwrap().repository;
    format!("{repository}/blob/main/docs/runbooks/{alert}.md")
}

fn alerts() -> Vec<Value> {
    let rule = documents("config/monitoring/prometheus-rule.yaml").remove(0);
    let groups = items(&rule, "/spec/groups");
    let rules: Vec<_> = groups.flat_map(|group| items(group, "/rules")).cloned().collect();
    assert!(rules.len() > 7, "{rule}");
    rules
}

/// Names of the files of a folder, without their extension.
fn stems(folder: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(root().join(folder)).unwrap();
    let stem = |file: std::io::Result<std::fs::DirEntry>| {
        file.unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    files.map(stem).collect()
}

fn names(alerts: &[Value]) -> BTreeSet<String> {
    let names: BTreeSet<_> = alerts
        .iter()
        .map(|alert| text(alert, "/alert").to_owned())
        .collect();
    assert_eq!(names.len(), alerts.len(), "an alert occurs twice");
    names
}

/// Whole minutes of a duration such as 15m.
fn minutes(duration: &str) -> u32 {
    duration
        .strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// What openshift/enhancements, alerting-consistency, requires of an alert, and this project beyond it.
fn faults(alert: &Value) -> Vec<&'static str> {
    let name = text(alert, "/alert");
    let annotation = |name: &str| text(alert, &format!("/annotations/{name}"));
    let severity = text(alert, "/labels/severity");
    let camel_case = name.chars().all(|letter| letter.is_ascii_alphanumeric());
    [
        (!(name.starts_with("MultusService") && camel_case), "name"),
        (!["warning", "info"].contains(&severity), "severity"),
        (minutes(text(alert, "/for")) < 15, "for"),
        (
            text(alert, "/labels/namespace") != api::names::NAMESPACE,
            "namespace",
        ),
        (!annotation("summary").ends_with('.'), "summary"),
        (
            annotation("description").len() <= annotation("summary").len(),
            "description",
        ),
        (annotation("runbook_url") != runbook(name), "runbook_url"),
    ]
    .into_iter()
    .filter_map(|(is_fault, field)| is_fault.then_some(field))
    .collect()
}

#[test]
fn every_alert_follows_the_rules_of_openshift() {
    for alert in alerts() {
        assert_eq!(faults(&alert), [""; 0], "{alert}");
    }
}

#[test]
fn alert_that_pages_or_lacks_a_field_is_a_fault() {
    let broken = |pointer: &str, value: &str| {
        let mut alert = alerts().remove(0);
        *alert.pointer_mut(pointer).unwrap() = value.into();
        faults(&alert)
    };
    assert_eq!(broken("/labels/severity", "critical"), ["severity"]);
    assert_eq!(broken("/for", "5m"), ["for"]);
    assert_eq!(broken("/alert", "proxy_down"), ["name", "runbook_url"]);
    assert_eq!(broken("/annotations/description", ""), ["description"]);
    assert_eq!(
        broken("/annotations/runbook_url", "https://example.com"),
        ["runbook_url"]
    );
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    assert_eq!(stems("docs/runbooks"), names(&alerts()));
    for name in names(&alerts()) {
        let page = std::fs::read_to_string(root().join(format!("docs/runbooks/{name}.md"))).unwrap();
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        let found: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(found, SECTIONS, "{name}");
        assert!(page.contains("$ kubectl "), "{name} has no command");
        // kubectl rejects flags before the name of a plugin.
        let is_invalid = |line: &&str| line.contains("kubectl -") && line.contains(" multus-service explain");
        assert_eq!(page.lines().find(is_invalid), None, "{name}");
    }
}

#[test]
fn alerts_use_existing_metrics_and_read_gauges_of_the_last_minutes() {
    let known = queries::known_metrics();
    for alert in alerts() {
        let (name, expression) = (text(&alert, "/alert"), text(&alert, "/expr"));
        let used = queries::metrics(expression);
        assert!(!used.is_empty(), "{name} uses no metric");
        assert_eq!(queries::unknown(&used, &known), [""; 0], "{name}");
        let instant = queries::instant_selectors(expression);
        assert_eq!(instant, [""; 0], "{name}: one failed scrape would resolve it");
    }
}

/// Queries of a rendered dashboard, by `expr`.
fn expressions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| expressions(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

fn expressions_of(dashboard: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    expressions(&serde_json::from_str(dashboard).unwrap(), &mut found);
    found
}

#[test]
fn dashboards_are_generated_from_the_panels() {
    let file = std::fs::read_to_string(root().join("config/monitoring/dashboard.json")).unwrap();
    assert!(
        file == format!("{:#}\n", dashboard(&rows())),
        "run `make manifests`"
    );
    let of_console = documents("config/monitoring/console-dashboard.yaml").remove(0);
    assert_eq!(of_console, config_map(&rows()), "run `make manifests`");
}

#[test]
fn both_dashboards_show_every_query_and_the_console_no_heatmap() {
    let wanted = |with_heatmap| -> BTreeSet<String> {
        let panels = rows().into_iter().flat_map(|row| row.panels);
        let shown = panels.filter(|panel| with_heatmap || panel.kind != olm::dashboard::Kind::Heatmap);
        shown
            .flat_map(|panel| panel.queries)
            .map(|(query, _)| query.to_owned())
            .collect()
    };
    let of_console = config_map(&rows());
    assert_eq!(
        of_console["metadata"]["labels"]["console.openshift.io/dashboard"],
        "true"
    );
    assert_eq!(
        expressions_of(text(&of_console, "/data/multus-service.json")),
        wanted(false)
    );
    let grafana = dashboard(&rows());
    assert_eq!(expressions_of(&grafana.to_string()), wanted(true));
    let panels: Vec<_> = items(&grafana, "/panels").collect();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(
        ids.len(),
        panels.len(),
        "Grafana drops a panel whose id another has"
    );
    assert!(panels.iter().all(|panel| panel["gridPos"]["x"].as_u64().unwrap()
        + panel["gridPos"]["w"].as_u64().unwrap()
        <= 24));
}

#[test]
fn dashboard_uses_existing_metrics_and_labels_of_the_query_in_legends() {
    let known = queries::known_metrics();
    for panel in rows().into_iter().flat_map(|row| row.panels) {
        for (query, legend) in panel.queries {
            let used = queries::metrics(query);
            assert!(!used.is_empty(), "{} shows no metric", panel.title);
            assert_eq!(queries::unknown(&used, &known), [""; 0], "{}", panel.title);
            for label in legend
                .split("{{")
                .skip(1)
                .map(|rest| rest.split("}}").next().unwrap())
            {
                let grouped = query.split("by (").nth(1).unwrap().split(')').next().unwrap();
                assert!(
                    grouped.split(", ").any(|name| name == label),
                    "{}: {label} of {query}",
                    panel.title
                );
            }
        }
    }
}
