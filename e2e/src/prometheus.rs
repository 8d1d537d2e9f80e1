//! A real Prometheus on the two-node cluster. It discovers its targets through the API server, authenticates itself with the token of a
//! `ServiceAccount`, and alerts, as the `ServiceMonitors` and the `PrometheusRule` of the operator configure it.
//!
//! Writes: a namespace with the account, its role and binding, and one process in the network namespace of the control plane.

mod config;

pub use config::Pace;

use crate::admin::apply;
use crate::demo::install::repository;
use anyhow::{Context as _, Result, ensure};
use api::names::NAMESPACE as PRODUCT;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use testbed::apiserver::process_guard::Process;
use testbed::cluster::layout;
use testbed::tools::{self, PROMETHEUS};
use testbed::{cluster, command, wait};

/// Namespace of the `ServiceAccount` of Prometheus.
const NAMESPACE: &str = "e2e-monitoring";
const ACCOUNT: &str = "prometheus";
const PORT: u16 = 9190;
const START: Duration = Duration::from_mins(2);
/// The part of prometheus-operator's kinds that the operator uses.
const DEFINITIONS: &str = "operator/tests/apiserver/monitoring-crds.yaml";

/// A Prometheus that runs.
pub struct Prometheus {
    folder: tempfile::TempDir,
    url: String,
    _process: Process,
}

impl Prometheus {
    /// Defines the kinds of prometheus-operator, waits for the objects of the operator, and starts Prometheus with them.
    pub fn start(pace: &Pace) -> Result<Self> {
        let program =
            tools::ensure(&[&PROMETHEUS], &|line| eprintln!("{line}"))?.program(&PROMETHEUS, "prometheus")?;
        define_kinds()?;
        let (monitors, rule) = objects_of_the_operator()?;
        create_account()?;
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let token = cluster::kubectl(&["-n", NAMESPACE, "create", "token", ACCOUNT])?;
        std::fs::write(file("token"), token.trim())?;
        let credentials = config::Credentials {
            server: layout::apiserver(),
            ca: layout::pki().join("ca.crt"),
            token: file("token"),
        };
        write(&file("rules.yaml"), &config::rules(&rule, pace))?;
        write(
            &file("prometheus.yaml"),
            &config::prometheus(&monitors, &credentials, pace)?,
        )?;
        let command = vec![
            program.display().to_string(),
            format!("--config.file={}", file("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", file("data").display()),
            format!("--web.listen-address={}:{PORT}", layout::CONTROL),
            "--log.level=warn".to_owned(),
        ];
        let process = cluster::beside_the_control_plane("prometheus", command, file("log"))?;
        let started = Self {
            folder,
            url: format!("http://{}:{PORT}", layout::CONTROL),
            _process: process,
        };
        wait::until(START, "Prometheus to be ready", || {
            started.get("/-/ready", &[]).map(|_| true)
        })
        .map_err(command::with_tail(&started.folder.path().join("log"), 10))?;
        Ok(started)
    }

    /// Alerts of the product that are in `state`: `pending` or `firing`.
    pub fn alerts(&self, state: &str) -> Result<Vec<Value>> {
        let answer = self.api("alerts", &[])?;
        let alerts = answer["alerts"].as_array().context("no alerts")?.iter();
        let is_ours = |alert: &&Value| {
            alert["state"] == state
                && alert["labels"]["alertname"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("MultusService"))
        };
        Ok(alerts.filter(is_ours).cloned().collect())
    }

    /// The result of an instant query: a vector of series.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        series(self.api("query", &[("query", query)])?)
    }

    /// The result of a range query over the last `range`: a vector of series with values.
    pub fn query_range(&self, query: &str, range: Duration, step: Duration) -> Result<Vec<Value>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let arguments = [
            ("query", query.to_owned()),
            ("start", now.saturating_sub(range).as_secs().to_string()),
            ("end", now.as_secs().to_string()),
            ("step", step.as_secs().to_string()),
        ];
        let arguments = arguments.each_ref().map(|(name, value)| (*name, value.as_str()));
        series(self.api("query_range", &arguments)?)
    }

    fn api(&self, path: &str, arguments: &[(&str, &str)]) -> Result<Value> {
        let answer = self.get(&format!("/api/v1/{path}"), arguments)?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].take())
    }

    fn get(&self, path: &str, arguments: &[(&str, &str)]) -> Result<String> {
        let mut curl = vec![
            "--silent".to_owned(),
            "--show-error".to_owned(),
            "--fail-with-body".to_owned(),
            "--max-time".to_owned(),
            "10".to_owned(),
            "--get".to_owned(),
        ];
        for (name, value) in arguments {
            curl.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        curl.push(format!("{}{path}", self.url));
        command::run("curl", &curl)
    }

    /// Stops Prometheus, and removes its account and the kinds of prometheus-operator with their objects.
    pub fn remove(self) -> Result<()> {
        drop(self);
        let patience = ["--ignore-not-found", "--timeout=120s"];
        let definitions = definitions();
        let role = format!("{NAMESPACE}-{ACCOUNT}");
        for object in [
            &["namespace", NAMESPACE][..],
            &["clusterrolebinding", &role],
            &["clusterrole", &role],
            &["-f", &definitions],
        ] {
            cluster::kubectl(&[&["delete"], object, &patience[..]].concat())?;
        }
        Ok(())
    }
}

fn series(mut data: Value) -> Result<Vec<Value>> {
    let Value::Array(series) = data["result"].take() else {
        anyhow::bail!("Prometheus answered {data}");
    };
    Ok(series)
}

fn definitions() -> String {
    repository().join(DEFINITIONS).display().to_string()
}

fn define_kinds() -> Result<()> {
    let file = definitions();
    cluster::kubectl(&["apply", "--server-side", "-f", &file])?;
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        &file,
    ];
    cluster::kubectl(&wait)?;
    Ok(())
}

/// The `ServiceMonitors` and the `PrometheusRule`, as soon as the operator has written them.
fn objects_of_the_operator() -> Result<(Vec<Value>, Value)> {
    let list = |kind: &str| -> Result<Vec<Value>> {
        let listed = cluster::kubectl(&["-n", PRODUCT, "get", kind, "-o", "json"])?;
        let mut listed: Value = serde_json::from_str(&listed)?;
        serde_json::from_value(listed["items"].take()).context("no list")
    };
    wait::value(START, "ServiceMonitors and a PrometheusRule", || {
        let (monitors, mut rules) = (list("servicemonitors")?, list("prometheusrules")?);
        let is_complete = monitors.len() == 3 && rules.len() == 1;
        Ok(is_complete.then(|| (monitors, rules.remove(0))))
    })
}

/// With the rights that kube-prometheus gives its Prometheus: discovery, and GET of `/metrics`.
fn create_account() -> Result<()> {
    let role = format!("{NAMESPACE}-{ACCOUNT}");
    let read = ["get", "list", "watch"];
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "pods"], "verbs": read},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        }),
    ] {
        apply(&object)?;
    }
    Ok(())
}

/// JSON is YAML.
fn write(path: &Path, document: &Value) -> Result<()> {
    Ok(std::fs::write(path, format!("{document:#}\n"))?)
}
