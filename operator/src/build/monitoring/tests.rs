//! Snapshots of the objects, and their agreement with the alerts.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;

const SERVED: Kinds = Kinds {
    admission_policies: false,
    quick_starts: false,
    yaml_samples: false,
    service_monitors: true,
    prometheus_rules: true,
};

fn added(settings: &Monitoring, kinds: Kinds) -> Operands {
    let mut operands = Operands::default();
    add(&mut operands, settings, kinds, "far-away");
    operands
}

fn openshift() -> Monitoring {
    Monitoring {
        is_openshift: true,
        ..Monitoring::default()
    }
}

#[test]
fn monitors_of_a_plain_prometheus_operator() {
    insta::assert_yaml_snapshot!(added(&Monitoring::default(), SERVED).service_monitors);
}

#[test]
fn monitors_and_binding_of_openshift() {
    let operands = added(&openshift(), SERVED);
    let of_proxy = |monitor: &&ServiceMonitor| monitor.name_any().contains("proxy");
    let monitors: Vec<_> = operands.service_monitors.iter().filter(of_proxy).collect();
    insta::assert_yaml_snapshot!((operands.service_monitors.len(), monitors, operands.role_bindings));
}

#[test]
fn monitoring_objects_are_built_only_where_their_kinds_are_served() {
    let counts = |service_monitors, prometheus_rules| {
        let kinds = Kinds {
            service_monitors,
            prometheus_rules,
            ..Kinds::default()
        };
        let operands = added(&openshift(), kinds);
        (
            operands.service_monitors.len(),
            operands.prometheus_rules.len(),
            operands.role_bindings.len(),
        )
    };
    assert_eq!(
        [counts(false, false), counts(true, false), counts(false, true)],
        [(0, 0, 0), (6, 0, 1), (0, 1, 0)]
    );
}

#[test]
fn alerts_are_of_the_namespace_of_the_operator() {
    let rule = added(&Monitoring::default(), SERVED).prometheus_rules.remove(0);
    let text = json!(rule.spec.fields).to_string();
    let count = |text: &str, part: &str| text.matches(part).count();
    assert_eq!(
        count(&text, r#""namespace":"far-away""#),
        count(&text, r#""alert":"#)
    );
    assert!(
        count(&text, r#""alert":"#) > 7 && count(&text, r#""namespace":"multus-service""#) == 0,
        "{text}"
    );
}

#[test]
fn labels_of_the_configuration_are_added_and_own_ones_stay() {
    let settings = Monitoring {
        labels: [("release", "prom"), ("app.kubernetes.io/managed-by", "me")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        is_openshift: true,
    };
    let operands = added(&settings, SERVED);
    let monitors = operands.service_monitors.iter().map(ResourceExt::labels);
    let labels: Vec<_> = monitors
        .chain(operands.prometheus_rules.iter().map(ResourceExt::labels))
        .collect();
    assert_eq!(labels.len(), 7);
    for labels in labels {
        assert_eq!(labels["release"], "prom");
        assert_eq!(
            labels["app.kubernetes.io/managed-by"],
            api::names::OPERATOR_MANAGED_BY
        );
    }
}

/// An alert on a series that the minimal profile drops would never fire there.
#[test]
fn minimal_profile_keeps_what_alerts_read_and_nothing_else() {
    let rule: PrometheusRule = parse(PROMETHEUS_RULE);
    let text = json!(rule.spec.fields).to_string();
    let in_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let names: BTreeSet<_> = text
        .split(|letter| !in_name(letter))
        .filter(|name| name.starts_with("multus_service_"))
        .collect();
    assert_eq!(names, MINIMAL.into());
}
