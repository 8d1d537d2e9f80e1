//! ServiceMonitors, alerts, and the right of OpenShift's Prometheus to discover its targets.
//!
//! Pure. On OpenShift each component has a second ServiceMonitor with the series of the alerts alone: the platform's Prometheus
//! reads the one of its collection profile. Every other Prometheus would read both, so it gets one.

use super::manifests::parse;
use crate::operands::{Kinds, Operands};
use crate::platform::monitoring::{PrometheusRule, ServiceMonitor};
use crate::validate::Monitoring;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const SERVICE_MONITOR: &str = include_str!("../../manifests/service-monitor.yaml");
const PROMETHEUS_RULE: &str = include_str!("../../../config/monitoring/prometheus-rule.yaml");
const ROLE_BINDING: &str = include_str!("../../manifests/monitoring-role-binding.yaml");

const COMPONENTS: [&str; 3] = ["controller", "operator", "proxy"];
/// Label of OpenShift, on ServiceMonitors.
const PROFILE: &str = "monitoring.openshift.io/collection-profile";
/// The series that alerts read: `up` is written by Prometheus itself.
const MINIMAL: [&str; 11] = [
    "multus_service_api_requests_total",
    "multus_service_condition",
    "multus_service_controller_endpointslice_services",
    "multus_service_controller_leader",
    "multus_service_controller_queue_depth",
    "multus_service_controller_queue_latency_seconds_count",
    "multus_service_proxy_network_programming_duration_seconds_bucket",
    "multus_service_proxy_pods_failing",
    "multus_service_proxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "multus_service_proxy_sync_proxy_rules_last_timestamp_seconds",
    "multus_service_rollout_nodes",
];

/// Adds the objects whose kinds are served.
pub(super) fn add(operands: &mut Operands, settings: &Monitoring, kinds: Kinds, namespace: &str) {
    if kinds.service_monitors {
        operands.service_monitors = service_monitors(settings, namespace);
        if settings.is_openshift {
            let mut binding: k8s_openapi::api::rbac::v1::RoleBinding = parse(ROLE_BINDING);
            binding.metadata.namespace = Some(namespace.to_owned());
            operands.role_bindings.push(binding);
        }
    }
    if kinds.prometheus_rules {
        operands.prometheus_rules = vec![prometheus_rule(settings, namespace)];
    }
}

fn service_monitors(settings: &Monitoring, namespace: &str) -> Vec<ServiceMonitor> {
    let full = COMPONENTS.map(|component| service_monitor(component, settings, namespace));
    if !settings.is_openshift {
        return full.into();
    }
    full.into_iter().flat_map(profiles).collect()
}

fn service_monitor(component: &str, settings: &Monitoring, namespace: &str) -> ServiceMonitor {
    let mut monitor: ServiceMonitor = parse(&SERVICE_MONITOR.replace("COMPONENT", component));
    monitor.metadata.namespace = Some(namespace.to_owned());
    add_labels(monitor.labels_mut(), settings);
    if settings.is_openshift {
        let server = format!("multus-service-{component}-metrics.{namespace}.svc");
        endpoint(&mut monitor).insert("tlsConfig".to_owned(), openshift_tls(&server));
    }
    monitor
}

/// Files of the platform's Prometheus: the authority of service-ca, and its own client certificate, by which it is authorized while
/// the API server is away.
fn openshift_tls(server: &str) -> Value {
    json!({
        "serverName": server,
        "caFile": "/etc/prometheus/configmaps/serving-certs-ca-bundle/service-ca.crt",
        "certFile": "/etc/prometheus/secrets/metrics-client-certs/tls.crt",
        "keyFile": "/etc/prometheus/secrets/metrics-client-certs/tls.key",
    })
}

/// The same targets for both collection profiles.
fn profiles(mut full: ServiceMonitor) -> [ServiceMonitor; 2] {
    let mut minimal = full.clone();
    full.labels_mut().insert(PROFILE.to_owned(), "full".to_owned());
    minimal.metadata.name = Some(format!("{}-minimal", full.name_any()));
    minimal
        .labels_mut()
        .insert(PROFILE.to_owned(), "minimal".to_owned());
    let keep = json!([{
        "action": "keep",
        "sourceLabels": ["__name__"],
        "regex": format!("({})", MINIMAL.join("|")),
    }]);
    endpoint(&mut minimal).insert("metricRelabelings".to_owned(), keep);
    [full, minimal]
}

fn endpoint(monitor: &mut ServiceMonitor) -> &mut Map<String, Value> {
    let endpoint = monitor
        .spec
        .fields
        .get_mut("endpoints")
        .and_then(|endpoints| endpoints.get_mut(0));
    endpoint
        .and_then(Value::as_object_mut)
        .expect("the manifest has one endpoint: a test renders it")
}

fn prometheus_rule(settings: &Monitoring, namespace: &str) -> PrometheusRule {
    let mut rule: PrometheusRule = parse(PROMETHEUS_RULE);
    rule.metadata.namespace = Some(namespace.to_owned());
    add_labels(rule.labels_mut(), settings);
    let groups = rule.spec.fields.get_mut("groups").and_then(Value::as_array_mut);
    for group in groups.into_iter().flatten() {
        let rules = group.get_mut("rules").and_then(Value::as_array_mut);
        for alert in rules.into_iter().flatten() {
            alert["labels"]["namespace"] = namespace.into();
        }
    }
    rule
}

/// The operator finds its objects by its own labels, so these stay.
fn add_labels(labels: &mut BTreeMap<String, String>, Monitoring { labels: more, .. }: &Monitoring) {
    for (key, value) in more {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

#[cfg(test)]
mod tests;
