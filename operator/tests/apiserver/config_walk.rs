//! Random walks through valid configurations: after every step the cluster equals a fresh installation.
//!
//! `WALK_STEPS` is the number of steps (`make walk`: 1,000). Every walk but the default, short one is random; a failure prints its
//! path.

use crate::fixture::cluster_state::state;
use crate::fixture::{Fixture, conditions};
use crate::monitoring::define_prometheus_operator;
use crate::openshift::define_the_console;
use anyhow::{Context as _, Result, ensure};
use api::MultusServiceConfig;
use api::names::{CLEANUP, CONFIG_NAME, PROXY};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use operator::cleanup::node_labels::{CLEANUP_PENDING, LABEL};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// Length of the default walk.
const STEPS: usize = 60;
const OPERANDS: [&str; 2] = ["controller", "proxy"];
/// Number of configurations that a walk visits, each with a neighbour: each costs a fresh installation.
const PLACES: usize = 8;
/// [`PLACES`] of the default walk.
const FEW_PLACES: usize = 3;

/// Draws one of these values; null is an unset field.
fn any_of(values: &Value) -> impl Strategy<Value = Value> + use<> {
    prop::sample::select(values.as_array().cloned().unwrap_or_default())
}

/// Fields of both operands' pods; `priority` differs from the operator's default.
fn pods(priority: &str, image: &str) -> impl Strategy<Value = Value> + use<> {
    let zone = json!({ "key": "zone", "operator": "Exists" });
    let required = json!({ "nodeSelectorTerms": [{ "matchExpressions": [zone] }] });
    let anywhere = json!({ "preference": { "matchExpressions": [zone] }, "weight": 1 });
    (
        any_of(&json!([null, {}, { "zone": "in" }])),
        any_of(&json!([
            null,
            { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } },
            { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [anywhere] } },
        ])),
        any_of(&json!([null, [{ "operator": "Exists" }], [{ "operator": "Exists", "effect": "NoSchedule" }]])),
        any_of(&json!([null, { "requests": { "cpu": "20m" } }, { "requests": { "cpu": 1 }, "limits": { "memory": "1024Mi" } }])),
        any_of(&json!([null, priority])),
        any_of(&json!([null, image])),
    )
        .prop_map(|(nodes, affinity, tolerations, resources, priority, image)| {
            json!({
                "nodeSelector": nodes, "affinity": affinity, "tolerations": tolerations, "resources": resources,
                "priorityClassName": priority, "image": image,
            })
        })
}

fn proxy() -> impl Strategy<Value = Value> {
    (
        pods("system-cluster-critical", "mine/proxy:v2"),
        any_of(&json!([null, "Auto", "IPTables", "NFTables"])),
        any_of(&json!([
            null,
            { "type": "OnDelete" },
            { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } },
            { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } },
        ])),
        any_of(&json!([
            null,
            "/run/crio/crio.sock",
            "unix:///run/k3s/containerd.sock"
        ])),
        any_of(&json!([null, [], [{ "network": "web/macvlan1", "interface": "ens4" }]])),
        any_of(&json!([null, [], ["kube-system", "multus"]])),
        any_of(&json!([null, 9125, 9300])),
    )
        .prop_map(
            |(mut proxy, backend, strategy, endpoint, networks, legacy, port)| {
                proxy["metricsPort"] = port;
                proxy["backend"] = backend;
                proxy["updateStrategy"] = strategy;
                proxy["containerRuntimeEndpoint"] = endpoint;
                proxy["hostNetworks"] = networks;
                proxy["legacyProxyNamespaces"] = legacy;
                proxy
            },
        )
}

fn controller() -> impl Strategy<Value = Value> {
    let pods = pods(
        "system-node-critical",
        "mine/controller@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    );
    (pods, any_of(&json!([null, 1, 2, 3]))).prop_map(|(mut controller, replicas)| {
        controller["replicas"] = replicas;
        controller
    })
}

/// The management state is drawn at every step; the other fields belong to a configuration.
fn place() -> impl Strategy<Value = Value> {
    let levels = json!([null, "Normal", "Debug", "Trace", "TraceAll"]);
    let images = (
        any_of(&json!([null, "Always", "IfNotPresent", "Never"])),
        any_of(&json!([null, [], [{ "name": "registry" }, { "name": "mirror" }]])),
    );
    let networks = (
        any_of(&json!([null, { "mode": "Enabled" }, { "mode": "Disabled" }])),
        any_of(&json!([null, ["default"], ["default", "networks"], []])),
        any_of(&json!([null, "Enabled", "Disabled"])),
        any_of(&json!([null, "Warn", "Deny", "Off"])),
        any_of(&json!([null, ["172.30.0.0/16"], ["172.30.0.0/16", "fd02::/112"]])),
    );
    let monitoring = any_of(&json!([
        null,
        { "managementState": "Removed" },
        { "managementState": "Managed", "labels": { "release": "prometheus" } },
    ]));
    let tracing = any_of(&json!([
        null,
        { "endpoint": "http://127.0.0.1:4317", "samplingRatePerMillion": 1000 },
        { "endpoint": "https://collector.observability.svc:4317", "ca": { "name": "receivers" } },
    ]));
    let logs = (any_of(&levels), any_of(&levels));
    (
        proxy(),
        controller(),
        images,
        networks,
        logs,
        (monitoring, tracing),
    )
        .prop_map(
            |(
                proxy,
                controller,
                (pull, secrets),
                (policy, namespaces, isolation, validation, ranges),
                (level, own_level),
                (monitoring, tracing),
            )| {
                without_null(json!({
                    "logLevel": level,
                    "operatorLogLevel": own_level,
                    "imagePullPolicy": pull,
                    "imagePullSecrets": secrets,
                    "networkPolicy": policy,
                    "monitoring": monitoring,
                    "tracing": tracing,
                    "globalNamespaces": namespaces,
                    "networkNamespaceIsolation": isolation,
                    "serviceValidation": validation,
                    "serviceCIDRs": ranges,
                    "controller": controller,
                    "proxy": proxy,
                }))
            },
        )
}

/// Fields beside ours in an object: removing them from the configuration must not remove a desired field.
const ADDITIONS: [(&str, &str); 6] = [
    ("", "imagePullSecrets"),
    ("/controller", "nodeSelector"),
    ("/controller", "resources"),
    ("/proxy", "nodeSelector"),
    ("/proxy", "resources"),
    ("/proxy", "affinity"),
];

/// The same configuration with one field less, or without additions: a step in which fields are only removed.
fn neighbour(runner: &mut TestRunner, place: &Value) -> Result<Value> {
    let all = paths(place);
    let gone = if draw(runner, &prop::bool::ANY)? {
        vec![draw(runner, &prop::sample::select(all))?]
    } else {
        ADDITIONS
            .map(|(parent, field)| (parent.to_owned(), field.to_owned()))
            .to_vec()
    };
    let mut neighbour = place.clone();
    for (parent, field) in gone {
        let parent = neighbour.pointer_mut(&parent).and_then(Value::as_object_mut);
        parent.context("a place has both operands")?.remove(&field);
    }
    Ok(neighbour)
}

/// Path and name of every field that is set.
fn paths(place: &Value) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for (name, value) in place.as_object().into_iter().flatten() {
        match value.as_object().filter(|_| OPERANDS.contains(&name.as_str())) {
            Some(operand) => paths.extend(operand.keys().map(|field| (format!("/{name}"), field.clone()))),
            None => paths.push((String::new(), name.clone())),
        }
    }
    paths
}

/// Every field of `spec`, and of operands one level deeper, except those drawn at each step.
fn fields(schema: &Value) -> BTreeSet<String> {
    let names = |schema: &Value| -> Vec<String> {
        let properties = schema["properties"].as_object();
        properties
            .map(|fields| fields.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut fields: BTreeSet<_> = names(schema).into_iter().collect();
    for operand in OPERANDS {
        fields.extend(
            names(&schema["properties"][operand])
                .iter()
                .map(|name| format!("{operand}.{name}")),
        );
    }
    fields.remove("managementState");
    fields
}

/// Fails for a field of the API that is missing here.
fn ensure_every_field_is_walked(runner: &mut TestRunner) -> Result<()> {
    let crd = api::config::crd_document()?;
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut walked = BTreeSet::new();
    for _ in 0..200 {
        let place = draw(runner, &place())?;
        for (name, value) in place.as_object().into_iter().flatten() {
            walked.insert(name.clone());
            if OPERANDS.contains(&name.as_str()) {
                walked.extend(
                    value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(field, _)| format!("{name}.{field}")),
                );
            }
        }
    }
    assert_eq!(walked, fields(schema));
    Ok(())
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

/// True when no node is labelled for cleanup.
async fn no_cleanup_is_pending(fixture: &Fixture) -> Result<bool> {
    let nodes: Api<Node> = Api::all(fixture.client.clone());
    let leaving = ListParams::default().labels(&format!("{LABEL}={CLEANUP_PENDING}"));
    let cleanup = fixture.here::<DaemonSet>().get_opt(CLEANUP).await?;
    Ok(nodes.list(&leaving).await?.items.is_empty() && cleanup.is_none())
}

async fn is_settled(fixture: &Fixture) -> Result<bool> {
    let Some(config) = fixture.configs().get_opt(CONFIG_NAME).await? else {
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
    let no_cleanup_is_pending = no_cleanup_is_pending(fixture).await?;
    Ok(status.observed_generation == config.metadata.generation
        && is("Progressing", "False")
        && is("Degraded", "False")
        && is("Available", available)
        && no_cleanup_is_pending)
}

/// The manual deletion that the OnDelete strategy asks for.
async fn delete_old_proxies(fixture: &Fixture) -> Result<()> {
    let waits = "Progressing=True/WaitingForPodDeletion".to_owned();
    if conditions(&fixture.config().await?).contains(&waits) {
        let proxies = ListParams::default().labels(&format!("app.kubernetes.io/name={PROXY}"));
        fixture
            .here::<Pod>()
            .delete_collection(&DeleteParams::default(), &proxies)
            .await?;
    }
    Ok(())
}

async fn settle(fixture: &Fixture) -> Result<Value> {
    fixture
        .eventually("the configuration to be in effect", async || {
            if is_settled(fixture).await? {
                return Ok(Some(()));
            }
            delete_old_proxies(fixture).await?;
            Ok(None)
        })
        .await?;
    let mut state = Box::pin(state(fixture)).await?;
    // Events and versions also depend on the path.
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

/// The state of a fresh installation with this configuration.
async fn fresh(fixture: &Fixture, spec: &Value) -> Result<Value> {
    if fixture.configs().get_opt(CONFIG_NAME).await?.is_some() {
        fixture
            .configs()
            .delete(CONFIG_NAME, &DeleteParams::default())
            .await?;
        fixture.until_config_deleted().await?;
    }
    fixture
        .configs()
        .create(&PostParams::default(), &object(spec)?)
        .await?;
    settle(fixture).await
}

/// Changes the configuration, from any state.
async fn step(fixture: &Fixture, spec: &Value) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": "/spec", "value": spec }]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    fixture
        .configs()
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
async fn random_walk_reaches_the_state_of_a_fresh_installation() -> Result<()> {
    let wished = std::env::var("WALK_STEPS")
        .ok()
        .and_then(|steps| steps.parse().ok());
    let mut runner = match wished {
        Some(_) => TestRunner::default(),
        None => TestRunner::deterministic(),
    };
    let mut fixture = Fixture::start().await?;
    define_the_console(&fixture).await?;
    define_prometheus_operator(&fixture)?;
    fixture.start_operator(true).await?;
    fixture.kubectl(&["label", "node", "node-a", "zone=in"])?;
    ensure_every_field_is_walked(&mut TestRunner::deterministic())?;
    let mut places = Vec::new();
    for _ in 0..wished.map_or(FEW_PLACES, |_| PLACES) {
        let place = draw(&mut runner, &place())?;
        places.extend([neighbour(&mut runner, &place)?, place]);
    }
    let mut expected = HashMap::new();
    for place in &places {
        for state in ["Managed", "Removed"] {
            let spec = with_state(place, state);
            let end = fresh(&fixture, &spec).await?;
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
    let next = (prop::bool::ANY, 0..places.len(), states);
    let mut path = Vec::new();
    let mut at = 0;
    for _ in 0..wished.unwrap_or(STEPS) {
        let (is_next_door, anywhere, state) = draw(&mut runner, &next)?;
        // Neighbours are 0 and 1, 2 and 3 ...
        at = if is_next_door { at ^ 1 } else { anywhere };
        let spec = with_state(&places[at], state);
        path.push(spec.to_string());
        step(&fixture, &spec).await?;
        // Unmanaged keeps the objects: the next step starts from there.
        if let Some(want) = expected.get(&spec.to_string()) {
            let end = settle(&fixture).await?;
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
