//! `must-gather`: what is in the folder, and that no credential is, wherever it was planted.

use crate::bed::{Scene, shared};
use anyhow::{Context as _, Result, ensure};
use api::names::{NAMESPACE, PART_OF};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::Command;

/// Part of every planted credential.
const PLANTED: &str = "planted-credential";

async fn create<K>(client: &Client, namespace: &str, object: Value) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

/// A credential in each place where users keep some.
async fn plant(client: &Client, scene: &Scene) -> Result<()> {
    let own = &scene.namespace;
    for namespace in [own, NAMESPACE] {
        let metadata =
            json!({ "name": format!("{own}-secret"), "labels": { "app.kubernetes.io/part-of": PART_OF } });
        create::<Secret>(
            client,
            namespace,
            json!({ "metadata": metadata, "stringData": { "a": PLANTED } }),
        )
        .await?;
        create::<ConfigMap>(
            client,
            namespace,
            json!({ "metadata": metadata, "data": { "a": PLANTED } }),
        )
        .await?;
    }
    let env = json!([{ "name": "PASSWORD", "value": PLANTED }]);
    let labels = json!({ "app": "planted" });
    let deployment = json!({
        "metadata": { "name": format!("{own}-planted"), "labels": { "app.kubernetes.io/part-of": PART_OF } },
        "spec": { "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "a", "image": "a", "env": env }] },
        } },
    });
    create::<Deployment>(client, NAMESPACE, deployment.clone()).await?;
    // Of another operator in the same namespace.
    let mut foreign = deployment;
    foreign["metadata"] = json!({ "name": format!("{own}-foreign") });
    foreign["spec"]["template"]["spec"]["containers"][0]["args"] = json!([PLANTED]);
    create::<Deployment>(client, NAMESPACE, foreign).await?;
    let attached = json!({
        "metadata": { "name": "planted", "annotations": {
            "k8s.v1.cni.cncf.io/networks": "testnet1", "example.com/token": PLANTED,
        } },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "a", "image": "a", "env": env, "args": [PLANTED] }] },
    });
    create::<Pod>(client, own, attached).await?;
    let applied = json!({ "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": PLANTED, "kapp.k14s.io/original": PLANTED } } });
    let services: Api<Service> = Api::namespaced(client.clone(), own);
    services
        .patch("web", &PatchParams::default(), &Patch::Merge(applied))
        .await?;
    let now = "2026-01-01T00:00:00.000000Z";
    let event = json!({
        "metadata": { "name": "seen", "namespace": own }, "eventTime": now, "action": "Sync", "reason": "NoPodsAttached",
        "type": "Warning", "note": "no selected pod is attached", "reportingController": "multus-service-controller",
        "reportingInstance": "a", "regarding": { "kind": "Service", "namespace": own, "name": "web" },
    });
    create::<Event>(client, own, event).await
}

/// Every file below a folder, by its path in it.
fn files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder)?.display().to_string();
                found.insert(name, std::fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

async fn must_gather(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .arg("--kubeconfig")
        .arg(shared().await?.kubeconfig())
        .args(arguments)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}{error}", output.status);
    Ok(text)
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn must_gather_has_what_a_bug_report_needs_and_no_credential() -> Result<()> {
    let scene = Scene::new("gather").await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.service(json!({})).await?;
    scene.is_well(None).await?;
    plant(&shared().await?.client().await?, &scene).await?;
    let folder = tempfile::tempdir()?;
    let to = format!("--dest-dir={}", folder.path().display());
    let program = Path::new(env!("CARGO_BIN_EXE_kubectl-multus_service"));
    let printed = must_gather(program, &["must-gather", &to, "--since=1h"]).await?;
    ensure!(printed.contains(" files, "), "{printed}");
    let files = files(folder.path())?;
    for (name, text) in &files {
        ensure!(!text.contains(PLANTED), "{name}: {text}");
    }
    let own = |name: &str| format!("namespaces/{}/{name}", scene.namespace);
    let operands = |name: &str| format!("namespaces/{NAMESPACE}/{name}");
    for (name, part) in [
        ("version".to_owned(), "multus-service/must-gather\n0."),
        ("reports/status.txt".to_owned(), "NoSupportedBackend"),
        ("reports/check.txt".to_owned(), "Kubernetes is v1."),
        ("cluster-scoped-resources/version.txt".to_owned(), "v1."),
        (
            "cluster-scoped-resources/multusservice.cni.cncf.io/multusserviceconfigs.yaml".to_owned(),
            "name: cluster",
        ),
        ("cluster-scoped-resources/core/nodes.yaml".to_owned(), "node-5"),
        (operands("apps/deployments.yaml"), "<redacted>"),
        (operands("core/pods.yaml"), "multus-service-proxy"),
        (
            operands("coordination.k8s.io/leases.yaml"),
            "multus-service-controller",
        ),
        (own("core/services-on-networks.yaml"), "name: web"),
        (
            own("discovery.k8s.io/endpointslices-on-networks.yaml"),
            "10.1.0.2",
        ),
        (
            own("k8s.cni.cncf.io/network-attachment-definitions-on-networks.yaml"),
            "testnet1",
        ),
        (own("core/pods-on-networks.yaml"), "name: planted"),
        (
            own("core/events-of-multus-service-controller.yaml"),
            "no selected pod is attached",
        ),
    ] {
        let text = files
            .get(&name)
            .with_context(|| format!("{name} is not one of {:?}", files.keys()))?;
        ensure!(text.contains(part), "{name} has no {part:?}: {text}");
    }
    for (name, text) in files.iter().filter(|(_, text)| text.starts_with("apiVersion:")) {
        let list: Value = serde_saphyr::from_str(text).with_context(|| name.clone())?;
        let items = list["items"].as_array().context("no items")?;
        ensure!(!items.is_empty(), "{name}: {text}");
        for item in items {
            ensure!(
                item["kind"].is_string() && item["apiVersion"].is_string(),
                "{name}: {item}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn must_gather_names_the_rights_that_are_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // As oc calls it in the image.
    let gather = folder.path().join("gather");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-multus_service"), &gather)?;
    let to = format!("--dest-dir={}", folder.path().join("report").display());
    let printed = must_gather(&gather, &[&to, "--as", "stranger", "-o", "json"]).await?;
    let printed: Value = serde_json::from_str(&printed)?;
    let missing = printed["missing"].to_string();
    ensure!(
        missing.contains("no permission to list nodes in the whole cluster"),
        "{printed}"
    );
    let files = files(&folder.path().join("report"))?;
    let list = files.get("not-gathered.txt").context("there is no list")?;
    ensure!(list.contains("no permission to list pods"), "{list}");
    ensure!(files.contains_key("version") && files.contains_key("reports/check.txt"));
    Ok(())
}
