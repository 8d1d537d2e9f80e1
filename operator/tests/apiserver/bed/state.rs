//! What an operator leaves in the cluster, for comparison with what another one leaves.

use super::{Bed, NAMESPACE, NODES, conditions};
use anyhow::Result;
use api::names::CONFIG_NAME;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use operator::gather::operands;
use operator::nodes::LABEL;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every object of ours, cut to what we ask for, the labels of nodes, the conditions.
pub(crate) async fn state(bed: &Bed) -> Result<Value> {
    let (live, _) = Box::pin(operands(&bed.client, NAMESPACE)).await?;
    let mut objects = BTreeMap::new();
    let mut add = |kind: &str, list: Vec<Value>| {
        for object in list {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            objects.insert(format!("{kind}/{name}"), cut(object));
        }
    };
    add("admissionpolicy", values(&live.admission_policies)?);
    add("admissionpolicybinding", values(&live.admission_policy_bindings)?);
    add("serviceaccount", values(&live.service_accounts)?);
    add("clusterrolebinding", values(&live.cluster_role_bindings)?);
    add("rolebinding", values(&live.role_bindings)?);
    add("networkpolicy", values(&live.network_policies)?);
    add("poddisruptionbudget", values(&live.pod_disruption_budgets)?);
    add("deployment", values(&live.deployments)?);
    add("daemonset", values(&live.daemon_sets)?);
    add("consolequickstart", values(&live.console_quick_starts)?);
    add("consoleyamlsample", values(&live.console_yaml_samples)?);
    let mut labels = BTreeMap::new();
    for node in NODES {
        let node = Api::<Node>::all(bed.client.clone()).get(node).await?;
        labels.insert(node.name_any(), node.labels().get(LABEL).cloned());
    }
    let config = bed.configs().get_opt(CONFIG_NAME).await?;
    Ok(
        json!({ "objects": objects, "labels": labels, "conditions": config.map(|config| conditions(&config)) }),
    )
}

fn values<K: serde::Serialize>(objects: &[K]) -> Result<Vec<Value>> {
    Ok(objects
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?)
}

/// Without what the API server and other controllers add with every object anew.
fn cut(mut object: Value) -> Value {
    let metadata = json!({ "name": object["metadata"]["name"], "labels": object["metadata"]["labels"] });
    object["metadata"] = metadata;
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}
