//! Alerts on the two-node cluster, with a real Prometheus that scrapes with authentication what the operator's `ServiceMonitors` select, and
//! evaluates its `PrometheusRule`. Minutes are seconds (see `Pace::FAST`); the rest is as shipped.
//!
//! The tests share one Prometheus and run one at a time, in the order of their names; the last one removes it.

#[path = "alerts/faults.rs"]
mod faults;

use anyhow::{Context as _, Result, ensure};
use api::names::NAMESPACE;
use e2e::demo::install::repository;
use e2e::demo::{installed, scenario};
use e2e::prometheus::{Pace, Prometheus};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use testbed::wait;

const PATIENCE: Duration = Duration::from_mins(3);
/// The longest window of an alert and its `for` have passed: what is silent now has no cause to fire.
const HEALTHY: Duration = Duration::from_secs(25);

static PROMETHEUS: Mutex<Option<Prometheus>> = Mutex::new(None);

/// The Prometheus of all tests; the first caller starts it.
fn prometheus() -> Result<MutexGuard<'static, Option<Prometheus>>> {
    let mut shared = PROMETHEUS.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        installed()?;
        *shared = Some(Prometheus::start(&Pace::FAST)?);
    }
    Ok(shared)
}

fn with(test: impl FnOnce(&Prometheus) -> Result<()>) -> Result<()> {
    let shared = prometheus()?;
    test(shared.as_ref().context("Prometheus runs")?)
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn a_all_targets_are_scraped_and_no_alert_is_pending() -> Result<()> {
    with(|prometheus| {
        wait::until(PATIENCE, "every target to be up", || {
            let up = prometheus.query("up")?;
            let jobs: BTreeSet<_> = up
                .iter()
                .map(|series| &series["metric"]["job"])
                .map(Value::to_string)
                .collect();
            let proxies = up
                .iter()
                .filter(|series| series["metric"]["job"] == "multus-service-proxy-metrics");
            let is_complete = jobs.len() == 3 && proxies.count() == 2;
            ensure!(
                is_complete && up.iter().all(|series| series["value"][1] == "1"),
                "{up:?}"
            );
            Ok(true)
        })?;
        until_silent(prometheus)?;
        let began = Instant::now();
        while began.elapsed() < HEALTHY {
            let pending = prometheus.alerts("pending")?;
            ensure!(pending.is_empty(), "{pending:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    })
}

/// An alert on a series that does not exist is silent for ever.
#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn b_every_series_that_an_alert_reads_exists() -> Result<()> {
    with(|prometheus| {
        let rules = std::fs::read_to_string(repository().join("config/monitoring/prometheus-rule.yaml"))?;
        let names: BTreeSet<_> = rules
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .filter(|word| word.starts_with("multus_service_"))
            .collect();
        ensure!(names.len() > 10, "{names:?}");
        for name in names {
            ensure!(!prometheus.query(name)?.is_empty(), "there is no series {name}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn c_a_proxy_without_image_fires() -> Result<()> {
    with(|prometheus| {
        faults::break_the_image()?;
        let alert = fires(prometheus, "MultusServiceProxyDown")?;
        let node = alert["labels"]["node"].as_str().unwrap_or_default();
        ensure!(node.starts_with("node"), "{alert:#}");
        let description = alert["annotations"]["description"].as_str().unwrap_or_default();
        ensure!(description.contains(node), "{description}");
        faults::repair_the_image()?;
        until_silent(prometheus)
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn d_a_controller_without_rights_fires() -> Result<()> {
    with(|prometheus| {
        let rights = faults::Rights::withdraw()?;
        let alert = fires(prometheus, "MultusServiceRequestsForbidden")?;
        ensure!(
            alert["labels"]["job"] == "multus-service-controller-metrics",
            "{alert:#}"
        );
        rights.restore()?;
        until_silent(prometheus)
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn e_a_network_namespace_that_rejects_rules_fires() -> Result<()> {
    with(|prometheus| {
        let client = scenario::client()?;
        let table = faults::OwnedTable::take(&client)?;
        let alert = fires(prometheus, "MultusServicePodsFailing")?;
        let labels = &alert["labels"];
        ensure!(labels["node"] == client.node.as_str(), "{alert:#}");
        // The proxy tries each ClusterIP alone after the kernel has rejected the whole, so that the cause is `partial`.
        let cause = labels["cause"].as_str().unwrap_or_default();
        let runbook =
            std::fs::read_to_string(repository().join("docs/runbooks/MultusServicePodsFailing.md"))?;
        ensure!(
            !cause.is_empty() && runbook.contains(&format!("`{cause}`")),
            "the runbook does not know the cause {cause:?}"
        );
        table.give_back()?;
        until_silent(prometheus)?;
        wait::until(PATIENCE, "the rules of the client", || {
            Ok(!client.rules()?.is_empty())
        })
    })
}

#[test]
#[ignore = "needs a cluster: make test-e2e"]
fn z_prometheus_is_removed() -> Result<()> {
    let mut shared = prometheus()?;
    shared.take().context("Prometheus runs")?.remove()
}

/// Waits until the alert fires; checks what its reader is given.
fn fires(prometheus: &Prometheus, name: &str) -> Result<Value> {
    let began = Instant::now();
    let alert = wait::value(PATIENCE, &format!("{name} to fire"), || {
        let mut firing = prometheus.alerts("firing")?.into_iter();
        let found = firing.find(|alert| alert["labels"]["alertname"] == name);
        ensure!(found.is_some(), "pending: {:?}", prometheus.alerts("pending")?);
        Ok(found)
    })?;
    println!("{name} fires after {:.1?}", began.elapsed());
    ensure!(alert["labels"]["namespace"] == NAMESPACE, "{alert:#}");
    for annotation in ["summary", "description"] {
        let text = alert["annotations"][annotation].as_str().unwrap_or_default();
        ensure!(
            !text.is_empty() && !text.contains("{{"),
            "{annotation}: {alert:#}"
        );
    }
    let runbook = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
    let file = runbook
        .rsplit_once("/blob/main/")
        .map(|(_, file)| repository().join(file));
    ensure!(file.is_some_and(|file| file.is_file()), "{runbook}");
    Ok(alert)
}

fn until_silent(prometheus: &Prometheus) -> Result<()> {
    let began = Instant::now();
    wait::until(PATIENCE, "all alerts to be resolved", || {
        let alerts = [prometheus.alerts("firing")?, prometheus.alerts("pending")?].concat();
        ensure!(alerts.is_empty(), "{alerts:?}");
        Ok(true)
    })?;
    println!("no alert after {:.1?}", began.elapsed());
    Ok(())
}
