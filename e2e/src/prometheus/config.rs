//! Configuration of Prometheus from `ServiceMonitors` and a `PrometheusRule`, as prometheus-operator renders it.
//!
//! Pure. Source: prometheus-operator, `pkg/prometheus/promcfg.go` (relabeling of a ServiceMonitor with the role endpointslice). Only fields
//! that the operator sets are known; another one is an error, so that none is left out silently.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Access of Prometheus to the API server and to its targets.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) server: String,
    pub(super) ca: PathBuf,
    pub(super) token: PathBuf,
}

/// Time scale of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between scrapes, and between evaluations.
    pub interval: &'static str,
    /// Replacements in the rules: durations that a test cannot wait for.
    pub replacements: &'static [(&'static str, &'static str)],
}

impl Pace {
    /// For a test: minutes become seconds. Everything else of the alerts is as shipped.
    pub const FAST: Self = Self {
        interval: "1s",
        replacements: &[
            ("[5m]", "[20s]"),
            ("[10m]", "[20s]"),
            ("> 900", "> 20"),
            ("\"15m\"", "\"4s\""),
            ("\"30m\"", "\"4s\""),
        ],
    };
    /// For a picture of minutes.
    pub const DENSE: Self = Self {
        interval: "5s",
        replacements: &[],
    };
}

/// The rule file.
pub(super) fn rules(rule: &Value, pace: &Pace) -> Value {
    let text = pace
        .replacements
        .iter()
        .fold(rule["spec"].to_string(), |text, (from, to)| {
            text.replace(from, to)
        });
    serde_json::from_str(&text).expect("durations have no syntax of JSON")
}

/// The main file, which names `rules.yaml` beside it.
pub(super) fn prometheus(monitors: &[Value], credentials: &Credentials, pace: &Pace) -> Result<Value> {
    let scrapes = monitors
        .iter()
        .map(|monitor| scrape(monitor, credentials))
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "global": {"scrape_interval": pace.interval, "scrape_timeout": pace.interval, "evaluation_interval": pace.interval},
        "rule_files": ["rules.yaml"],
        "scrape_configs": scrapes,
    }))
}

fn scrape(monitor: &Value, credentials: &Credentials) -> Result<Value> {
    let (name, namespace) = (&monitor["metadata"]["name"], &monitor["metadata"]["namespace"]);
    let endpoint = monitor["spec"]["endpoints"][0]
        .as_object()
        .context("a ServiceMonitor without endpoint")?;
    let mut scrape = json!({
        "job_name": format!("serviceMonitor/{}/{}/0", text(namespace)?, text(name)?),
        "kubernetes_sd_configs": [{
            "role": "endpointslice",
            "namespaces": {"names": [namespace]},
            "api_server": credentials.server,
            "authorization": {"credentials_file": credentials.token},
            "tls_config": {"ca_file": credentials.ca},
        }],
    });
    let mut relabeling = selection(monitor)?;
    for (field, value) in endpoint {
        match field.as_str() {
            "scheme" => scrape["scheme"] = value.clone(),
            // The file of the pod of Prometheus; here its content is elsewhere.
            "bearerTokenFile" => scrape["authorization"] = json!({"credentials_file": credentials.token}),
            "tlsConfig" => scrape["tls_config"] = snake_case(value),
            "port" => relabeling.push(keep("__meta_kubernetes_endpointslice_port_name", text(value)?)),
            // The pace of the test replaces the interval; relabelings come last.
            "interval" | "relabelings" => {}
            other => bail!("{name}: the field {other} of a ServiceMonitor is not rendered"),
        }
    }
    relabeling.extend(target_labels());
    let own = endpoint
        .get("relabelings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    relabeling.extend(own.map(snake_case));
    scrape["relabel_configs"] = relabeling.into();
    Ok(scrape)
}

fn selection(monitor: &Value) -> Result<Vec<Value>> {
    let labels = monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .context("a ServiceMonitor without matchLabels")?;
    let keep_label = |(label, value): (&String, &Value)| {
        let meta = label.replace(['.', '/', '-'], "_");
        Ok(keep(
            &format!("__meta_kubernetes_service_label_{meta}"),
            text(value)?,
        ))
    };
    labels.iter().map(keep_label).collect()
}

fn target_labels() -> Vec<Value> {
    let label = |source: &str, target: &str| json!({"source_labels": [format!("__meta_kubernetes_{source}")], "target_label": target});
    vec![
        json!({"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"}),
        label("namespace", "namespace"),
        label("service_name", "service"),
        label("service_name", "job"),
        label("pod_name", "pod"),
        label("pod_container_name", "container"),
        label("endpointslice_port_name", "endpoint"),
    ]
}

fn keep(label: &str, value: &str) -> Value {
    json!({"source_labels": [label], "regex": value, "action": "keep"})
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

/// Names of fields in the files of Prometheus.
fn snake_case(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let renamed = fields.map(|(name, value)| {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        (snake, value.clone())
    });
    Value::Object(renamed.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = include_str!("../../../config/monitoring/prometheus-rule.yaml");

    /// A duration that is not in the table would make the test of the alerts wait for minutes, or never fire.
    #[test]
    fn no_minutes_are_left_in_the_rules_of_a_test() {
        let rule: Value = serde_saphyr::from_str(RULE).unwrap();
        for group in rules(&rule, &Pace::FAST)["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let (expression, lasts) = (rule["expr"].as_str().unwrap(), rule["for"].as_str().unwrap());
                assert_eq!(lasts, "4s", "{rule}");
                assert!(
                    !expression.contains("m]") && !expression.contains("900"),
                    "{expression}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_field_of_a_service_monitor_is_rejected() {
        let monitor = json!({
            "metadata": {"name": "web", "namespace": "web"},
            "spec": {"selector": {"matchLabels": {"app.kubernetes.io/component": "proxy"}}, "endpoints": [{"port": "metrics", "path": "/other"}]},
        });
        let credentials = Credentials {
            server: String::new(),
            ca: PathBuf::new(),
            token: PathBuf::new(),
        };
        let error = scrape(&monitor, &credentials).unwrap_err().to_string();
        assert!(error.contains("path"), "{error}");
    }
}
