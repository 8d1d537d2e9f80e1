//! A bundle broken for each suite of bundle-verify.

use anyhow::{Context as _, Result};
use olm::Bundle;
use serde_json::{Value, json};

/// (what is broken, suite, ERROR or WARN, a bundle that it must not like)
pub(crate) fn all(whole: &Bundle) -> Result<Vec<(&'static str, &'static str, &'static str, Bundle)>> {
    let csv = |pointer: &str, value: Value| edited(whole, pointer, value);
    let annotation = |key: &str, value: &str| csv(&format!("/metadata/annotations/{key}"), json!(value));
    let container = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";
    Ok(vec![
        (
            "examples that are no JSON",
            "default",
            "ERROR",
            annotation("alm-examples", "[{]")?,
        ),
        (
            "an owned kind without a CRD",
            "default",
            "ERROR",
            csv("/spec/customresourcedefinitions/owned/0/kind", json!("Other"))?,
        ),
        (
            "the service account twice",
            "default",
            "ERROR",
            with(
                whole,
                &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "multus-service-operator"}}),
            ),
        ),
        (
            "a disruption budget that blocks every eviction",
            "object",
            "ERROR",
            with(
                whole,
                &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "more"},
                    "spec": {"maxUnavailable": 0, "selector": {}}}),
            ),
        ),
        (
            "an address that is none",
            "operatorhubv2",
            "ERROR",
            csv(
                "/spec/maintainers",
                json!([{"name": "someone", "email": "at nowhere"}]),
            )?,
        ),
        (
            "an unknown capability",
            "capabilities",
            "ERROR",
            annotation("capabilities", "Everything")?,
        ),
        (
            "an unknown category",
            "categories",
            "ERROR",
            annotation("categories", "Kitchen")?,
        ),
        (
            "a container without requests",
            "good-practices",
            "WARN",
            csv(&format!("{container}/resources"), json!({}))?,
        ),
        (
            "an API that was removed",
            "deprecated-apis",
            "ERROR",
            with(
                whole,
                &json!({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "more"},
                    "spec": {"minAvailable": 1, "selector": {}}}),
            ),
        ),
        (
            "a nameless provider",
            "operatorhub",
            "ERROR",
            csv("/spec/provider", json!({}))?,
        ),
        (
            "an API that Kubernetes 1.22 removed",
            "community",
            "ERROR",
            with(
                whole,
                &json!({"apiVersion": "rbac.authorization.k8s.io/v1beta1", "kind": "ClusterRole", "metadata": {"name": "more"}, "rules": []}),
            ),
        ),
    ])
}

fn edited(whole: &Bundle, pointer: &str, value: Value) -> Result<Bundle> {
    let mut bundle = whole.clone();
    let path = format!("manifests/{}.clusterserviceversion.yaml", olm::PACKAGE);
    let mut csv = bundle.csv()?;
    *csv.pointer_mut(pointer)
        .with_context(|| format!("the CSV has no {pointer}"))? = value;
    bundle.files.insert(path, olm::bundle::yaml(&csv));
    Ok(bundle)
}

fn with(whole: &Bundle, object: &Value) -> Bundle {
    let mut bundle = whole.clone();
    bundle
        .files
        .insert("manifests/more.yaml".to_owned(), olm::bundle::yaml(object));
    bundle
}
