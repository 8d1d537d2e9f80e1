//! Random walks through the valid configurations: after every step the cluster is as a fresh installation leaves it.
//!
//! `WALK_STEPS` says how many steps (`make walk`: 1,000). Every walk but the default one is another; the path is printed when it fails.

use crate::bed::Bed;
use crate::bed::state::state;
use anyhow::{Result, ensure};
use api::MultusServiceConfig;
use api::names::{CLEANUP, CONFIG_NAME};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use operator::nodes::{LABEL, LEAVING};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::HashMap;

const STEPS: usize = 200;
/// Different configurations that a walk visits: each costs a fresh installation.
const PLACES: usize = 16;

/// The state of management is drawn at every step, the rest belongs to a place.
fn place() -> impl Strategy<Value = Value> {
    let proxy = (
        prop::sample::select(vec!["Auto", "IPTables", "NFTables"]),
        prop::sample::select(vec![json!({}), json!({ "zone": "in" })]),
        prop::sample::select(vec![
            Value::Null,
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } }),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } }),
        ]),
        prop::sample::select(vec![Value::Null, json!({ "requests": { "cpu": "20m" } })]),
        prop::sample::select(vec![Value::Null, json!("mine/proxy:v2")]),
    );
    let controller = (
        1..=3,
        prop::sample::select(vec![Value::Null, json!([{ "operator": "Exists" }])]),
        prop::sample::select(vec![Value::Null, json!("system-node-critical")]),
    );
    let rest = (
        prop::sample::select(vec!["Normal", "Debug"]),
        prop::sample::select(vec!["Enabled", "Disabled"]),
        prop::sample::select(vec![
            json!(["default"]),
            json!(["default", "networks"]),
            json!([]),
        ]),
        prop::sample::select(vec!["Enabled", "Disabled"]),
    );
    (proxy, controller, rest).prop_map(
        |(
            (backend, nodes, strategy, resources, image),
            (replicas, tolerations, priority),
            (level, policy, namespaces, isolation),
        )| {
            without_null(json!({
                "logLevel": level,
                "networkPolicy": { "mode": policy },
                "globalNamespaces": namespaces,
                "networkNamespaceIsolation": isolation,
                "controller": { "replicas": replicas, "tolerations": tolerations, "priorityClassName": priority },
                "proxy": { "backend": backend, "nodeSelector": nodes, "updateStrategy": strategy, "resources": resources, "image": image },
            }))
        },
    )
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_null(value)))
                .collect(),
        ),
        other => other,
    }
}

fn draw<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> Result<T> {
    let tree = strategy
        .new_tree(runner)
        .map_err(|reason| anyhow::anyhow!("{reason}"))?;
    Ok(tree.current())
}

/// No node is still to be cleaned.
async fn nobody_leaves(bed: &Bed) -> Result<bool> {
    let nodes: Api<Node> = Api::all(bed.client.clone());
    let leaving = ListParams::default().labels(&format!("{LABEL}={LEAVING}"));
    let clean_up = bed.here::<DaemonSet>().get_opt(CLEANUP).await?;
    Ok(nodes.list(&leaving).await?.items.is_empty() && clean_up.is_none())
}

async fn is_settled(bed: &Bed) -> Result<bool> {
    let Some(config) = bed.configs().get_opt(CONFIG_NAME).await? else {
        return Ok(false);
    };
    let status = config.status.unwrap_or_default();
    let is = |type_: &str, wanted: &str| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == type_ && condition.status == wanted)
    };
    let is_removed = config.spec.management_state == api::config::ManagementState::Removed;
    let available = if is_removed { "False" } else { "True" };
    let nobody_leaves = nobody_leaves(bed).await?;
    Ok(status.observed_generation == config.metadata.generation
        && is("Progressing", "False")
        && is("Degraded", "False")
        && is("Available", available)
        && nobody_leaves)
}

async fn settle(bed: &Bed) -> Result<Value> {
    bed.eventually("the configuration to be in effect", async || {
        Ok(is_settled(bed).await?.then_some(()))
    })
    .await?;
    let mut state = Box::pin(state(bed)).await?;
    // They tell of the way, too.
    if let Some(state) = state.as_object_mut() {
        state.remove("conditions");
    }
    Ok(state)
}

fn object(spec: &Value) -> Result<MultusServiceConfig> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig",
        "metadata": { "name": CONFIG_NAME }, "spec": spec,
    }))?)
}

/// What an installation with this configuration, and with no other before it, looks like.
async fn fresh(bed: &Bed, spec: &Value) -> Result<Value> {
    if bed.configs().get_opt(CONFIG_NAME).await?.is_some() {
        bed.configs()
            .delete(CONFIG_NAME, &DeleteParams::default())
            .await?;
        bed.eventually("the configuration to go", async || {
            Ok(bed.configs().get_opt(CONFIG_NAME).await?.is_none().then_some(()))
        })
        .await?;
    }
    bed.configs()
        .create(&PostParams::default(), &object(spec)?)
        .await?;
    settle(bed).await
}

/// Goes there from wherever it is.
async fn step(bed: &Bed, spec: &Value) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": "/spec", "value": spec }]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    bed.configs()
        .patch(CONFIG_NAME, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn with_state(place: &Value, state: &str) -> Value {
    let mut spec = place.clone();
    spec["managementState"] = json!(state);
    spec
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn after_any_walk_the_cluster_is_as_a_fresh_installation_leaves_it() -> Result<()> {
    let wished = std::env::var("WALK_STEPS")
        .ok()
        .and_then(|steps| steps.parse().ok());
    let mut runner = match wished {
        Some(_) => TestRunner::default(),
        None => TestRunner::deterministic(),
    };
    let mut bed = Bed::start().await?;
    bed.start_operator(true).await?;
    bed.kubectl(&["label", "node", "node-a", "zone=in"])?;
    let places: Vec<_> = (0..PLACES)
        .map(|_| draw(&mut runner, &place()))
        .collect::<Result<_>>()?;
    let mut expected = HashMap::new();
    for place in &places {
        for state in ["Managed", "Removed"] {
            let spec = with_state(place, state);
            let end = fresh(&bed, &spec).await?;
            expected.insert(spec.to_string(), end);
        }
    }
    let states = prop::sample::select(vec![
        "Managed",
        "Managed",
        "Managed",
        "Managed",
        "Unmanaged",
        "Removed",
    ]);
    let next = (prop::sample::select(places), states);
    let mut path = Vec::new();
    for _ in 0..wished.unwrap_or(STEPS) {
        let (place, state) = draw(&mut runner, &next)?;
        let spec = with_state(&place, state);
        path.push(spec.to_string());
        step(&bed, &spec).await?;
        // Unmanaged leaves what there is: the next step starts from there.
        if let Some(want) = expected.get(&spec.to_string()) {
            let end = settle(&bed).await?;
            let from = path.len().saturating_sub(3);
            ensure!(
                end == *want,
                "after {} steps, the last of them {:#?}: {end:#}\nfresh: {want:#}",
                path.len(),
                &path[from..]
            );
        }
    }
    Ok(())
}
