//! The kinds of prometheus-operator on the API server: absent, then installed; the field `monitoring`.

use crate::fixture::{Fixture, NAMESPACE};
use crate::openshift::become_openshift;
use anyhow::{Context as _, Result, ensure};
use api::names::CONFIG_NAME;
use operator::operands::SELECTOR;
use serde_json::{Value, json};

const DEFINITIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/apiserver/monitoring-crds.yaml"
);
pub(crate) const MONITORS: [&str; 3] = [
    "multus-service-controller",
    "multus-service-operator",
    "multus-service-proxy",
];
pub(crate) const MONITORS_OF_OPENSHIFT: [&str; 6] = [
    "multus-service-controller",
    "multus-service-controller-minimal",
    "multus-service-operator",
    "multus-service-operator-minimal",
    "multus-service-proxy",
    "multus-service-proxy-minimal",
];
const BINDING: &str = "rolebinding/multus-service-monitoring";

pub(crate) fn define_prometheus_operator(fixture: &Fixture) -> Result<()> {
    fixture.kubectl(&["apply", "--server-side", "-f", DEFINITIONS])?;
    fixture.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        DEFINITIONS,
    ])?;
    Ok(())
}

fn names(fixture: &Fixture, kind: &str) -> Result<Vec<String>> {
    let path = "jsonpath={.items[*].metadata.name}";
    let listed = fixture.kubectl(&["-n", NAMESPACE, "get", kind, "-l", SELECTOR, "-o", path])?;
    Ok(listed.split_whitespace().map(str::to_owned).collect())
}

/// Waits for these ServiceMonitors, and this number of PrometheusRules.
pub(crate) async fn until_monitored(fixture: &Fixture, monitors: &[&str], rules: usize) -> Result<()> {
    fixture
        .eventually(
            &format!("ServiceMonitors {monitors:?}, {rules} PrometheusRules"),
            async || {
                let found = (
                    names(fixture, "servicemonitors")?,
                    names(fixture, "prometheusrules")?,
                );
                ensure!(
                    found.0 == monitors && found.1.len() == rules,
                    "there are {found:?}"
                );
                Ok(Some(()))
            },
        )
        .await
}

fn get(fixture: &Fixture, object: &str) -> Result<Value> {
    let text = fixture.kubectl(&["-n", NAMESPACE, "get", object, "-o", "json"])?;
    serde_json::from_str(&text).context("kubectl printed no JSON")
}

/// Every change must be observed in less than the five minutes of the resync.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn monitoring_objects_exist_while_their_kinds_do_and_the_configuration_wants_them() -> Result<()> {
    let fixture = Fixture::installed().await?;
    define_prometheus_operator(&fixture)?;
    until_monitored(&fixture, &MONITORS, 1).await?;
    fixture.until_installed().await?;
    let spec = &get(&fixture, "servicemonitor/multus-service-proxy")?["spec"];
    assert_eq!(
        spec["endpoints"][0]["tlsConfig"],
        json!({ "insecureSkipVerify": true })
    );
    ensure!(
        get(&fixture, BINDING).is_err(),
        "the Prometheus of OpenShift is bound elsewhere"
    );

    // As any other operand: deleted, changed.
    fixture.kubectl(&["-n", NAMESPACE, "delete", "servicemonitor", MONITORS[0]])?;
    until_monitored(&fixture, &MONITORS, 1).await?;
    let edit = json!({ "spec": { "groups": [] } }).to_string();
    let patch = [
        "patch",
        "prometheusrule",
        "multus-service",
        "--type=merge",
        "-p",
        &edit,
    ];
    fixture.kubectl(&[&["-n", NAMESPACE], &patch[..]].concat())?;
    fixture
        .eventually("the alerts to be restored", async || {
            let rule = get(&fixture, "prometheusrule/multus-service")?;
            ensure!(
                rule["spec"]["groups"][0]["rules"][0]["labels"]["namespace"] == NAMESPACE,
                "{rule}"
            );
            Ok(Some(()))
        })
        .await?;

    let labels = json!({ "monitoring": { "labels": { "release": "prometheus" } } });
    fixture.set_spec(labels).await?;
    fixture
        .eventually("the label of the configuration", async || {
            let found = fixture.kubectl(&[
                "-n",
                NAMESPACE,
                "get",
                "servicemonitors,prometheusrules",
                "-l",
                "release=prometheus",
                "-o",
                "name",
            ])?;
            ensure!(found.lines().count() == 4, "it is on {found}");
            Ok(Some(()))
        })
        .await?;
    fixture
        .set_spec(json!({ "monitoring": { "managementState": "Removed" } }))
        .await?;
    until_monitored(&fixture, &[], 0).await?;
    fixture.until_installed().await?;
    fixture
        .set_spec(json!({ "monitoring": { "managementState": "Managed" } }))
        .await?;
    until_monitored(&fixture, &MONITORS, 1).await?;

    fixture.kubectl(&["delete", "msc", CONFIG_NAME, "--timeout=100s"])?;
    until_monitored(&fixture, &[], 0).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn prometheus_of_openshift_gets_both_profiles_and_its_right() -> Result<()> {
    let fixture = Fixture::installed().await?;
    become_openshift(&fixture, "HighlyAvailable").await?;
    define_prometheus_operator(&fixture)?;
    until_monitored(&fixture, &MONITORS_OF_OPENSHIFT, 1).await?;
    fixture.until_installed().await?;
    let binding = get(&fixture, BINDING)?;
    let subject =
        json!({ "kind": "ServiceAccount", "name": "prometheus-k8s", "namespace": "openshift-monitoring" });
    assert_eq!(binding["subjects"], json!([subject]));
    let account = "--as=system:serviceaccount:openshift-monitoring:prometheus-k8s";
    for resource in ["services", "endpoints", "pods", "endpointslices.discovery.k8s.io"] {
        let answer = fixture.kubectl(&["-n", NAMESPACE, "auth", "can-i", "watch", resource, account])?;
        assert_eq!(answer.trim(), "yes", "{resource}");
    }

    fixture
        .set_spec(json!({ "monitoring": { "managementState": "Removed" } }))
        .await?;
    until_monitored(&fixture, &[], 0).await?;
    fixture
        .eventually("the binding to be removed", async || {
            Ok(get(&fixture, BINDING).is_err().then_some(()))
        })
        .await
}
