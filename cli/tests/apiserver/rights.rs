//! With the rights of one namespace's user.

use std::time::Duration;

use anyhow::Result;
use cli::chain::{State, Topic};
use cli::explain::explain;
use cli::facts::{self, ReadError, Reader};
use cli::render::{Outcome, Report as _};
use cli::situations::Cause;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::bed::{Scene, shared};

/// Gives `alice` rules in the scene's namespace; returns her client.
async fn alice(scene: &Scene, rules: Value) -> Result<Client> {
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "alice"}, "rules": rules}))?;
    let binding: RoleBinding = serde_json::from_value(json!({"metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "alice"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}]}))?;
    let api: Api<Role> = Api::namespaced(scene.client.clone(), &scene.namespace);
    api.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(scene.client.clone(), &scene.namespace);
    bindings.create(&PostParams::default(), &binding).await?;
    shared().await?.client_as("alice", &[]).await
}

fn view() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list"]},
        {"apiGroups": ["k8s.cni.cncf.io"], "resources": ["network-attachment-definitions"], "verbs": ["get", "list"]},
    ])
}

/// Nodes, the configuration and the operator's namespace are not hers: that is named, and what is hers is explained to the end.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_user_of_one_namespace_gets_the_whole_chain_of_it() -> Result<()> {
    let scene = Scene::new("alice").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.service(json!({})).await?;
    scene.client_on("node-1", &["10.1.0.9"]).await?;
    let client = scene.key("client");
    scene.is_well(Some(&client)).await?;
    let reader = Reader::new(alice(&scene, view()).await?, Duration::from_secs(30));
    let key = scene.key("web");
    let explanation = explain(&facts::explain(&reader, &key, Some(&client)).await, &key);
    assert_eq!(
        explanation.chain.state(),
        State::Unknown,
        "{}",
        explanation.text()
    );
    let unknown = explanation
        .chain
        .links
        .iter()
        .filter(|link| link.state == State::Unknown);
    let unknown: Vec<_> = unknown.map(|link| link.topic).collect();
    assert_eq!(
        unknown,
        [Topic::Installation, Topic::Controller, Topic::Proxy],
        "{}",
        explanation.text()
    );
    assert_eq!(
        explanation.chain.links.last().map(|link| link.topic),
        Some(Topic::Rules)
    );
    assert_eq!(explanation.outcome(), Outcome::Well);
    let text = explanation.text();
    for right in [
        "kubectl auth can-i list nodes -A",
        "kubectl auth can-i list pods -n multus-service",
    ] {
        assert!(text.contains(right), "{right}: {text}");
    }
    assert!(
        explanation
            .read_errors
            .iter()
            .all(|read_error| matches!(read_error, ReadError::Forbidden(_))),
        "{:?}",
        explanation.read_errors
    );

    let broken = Scene::new("alice-broken").await?;
    broken.any_pod("web-1", "web", "[]", json!({}), "True").await?;
    broken.service(json!({})).await?;
    let reader = Reader::new(alice(&broken, view()).await?, Duration::from_secs(30));
    let key = broken.key("web");
    let explanation = explain(&facts::explain(&reader, &key, None).await, &key);
    assert_eq!(
        explanation.cause(),
        Some(Cause::NoPodsAttached),
        "{}",
        explanation.text()
    );
    Ok(())
}

/// A missing permission for one kind affects only the statements about it.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn each_missing_right_is_named_and_the_rest_is_reported() -> Result<()> {
    for (left_out, topic) in [
        ("services", Topic::Service),
        ("pods", Topic::Pods),
        ("endpointslices", Topic::Slices),
        ("network-attachment-definitions", Topic::Network),
    ] {
        let scene = Scene::new("less").await?;
        scene.pod("web-1", &["10.1.0.2"]).await?;
        scene.service(json!({})).await?;
        scene.is_well(None).await?;
        let mut rules = view();
        for rule in rules.as_array_mut().into_iter().flatten() {
            if let Some(resources) = rule["resources"].as_array_mut() {
                resources.retain(|resource| resource != left_out);
            }
        }
        rules
            .as_array_mut()
            .into_iter()
            .for_each(|rules| rules.retain(|rule| rule["resources"] != json!([])));
        // A role of its own: users of other tests are called the same, in other namespaces.
        let reader = Reader::new(alice(&scene, rules).await?, Duration::from_secs(30));
        let key = scene.key("web");
        let explanation = explain(&facts::explain(&reader, &key, None).await, &key);
        let of_topic = explanation.chain.links.iter().find(|link| link.topic == topic);
        assert!(
            of_topic.is_some_and(|link| link.state == State::Unknown),
            "{left_out}: {}",
            explanation.text()
        );
        let is_named = |read_error: &ReadError| matches!(read_error, ReadError::Forbidden(right) if right.resource.starts_with(left_out));
        assert!(
            explanation.read_errors.iter().any(is_named),
            "{left_out}: {:?}",
            explanation.read_errors
        );
        let want = if left_out == "services" {
            Outcome::NoAccess
        } else {
            Outcome::Well
        };
        assert_eq!(explanation.outcome(), want, "{left_out}: {}", explanation.text());
    }
    Ok(())
}
