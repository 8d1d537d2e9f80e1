//! What the chart installs, upgrades, keeps and rejects.

use super::helm::Helm;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource};
use olm::{Bundle, Platform, Source, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testbed::apiserver::{Apiserver, Options};

const CRD: &str = "multusserviceconfigs.multusservice.cni.cncf.io";
const CRD_FILE: &str =
    "templates/customresourcedefinition-multusserviceconfigs.multusservice.cni.cncf.io.yaml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    root().join("charts/multus-service")
}

/// A copy of the chart with one text replaced in one file.
fn edited(file: &str, old: &str, new: &str) -> Result<TempDir> {
    let copy = tempfile::tempdir()?;
    let Bundle { mut files } = Bundle::read(&chart())?;
    let content = files.get_mut(file).with_context(|| format!("no {file}"))?;
    ensure!(content.contains(old), "{file} has no {old:?}");
    *content = content.replacen(old, new, 1);
    Bundle { files }.write(copy.path())?;
    Ok(copy)
}

fn by_identity(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let key = |object: &Value| format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"));
    objects.into_iter().map(|object| (key(&object), object)).collect()
}

#[tokio::test]
#[ignore = "builds Helm: make test-apiserver"]
async fn helm_lint_accepts_the_chart_and_rejects_a_broken_one() -> Result<()> {
    let helm = Helm::new(None).await?;
    helm.run(&["lint", "--strict", &chart().display().to_string()])?;
    let broken = edited(
        "templates/deployment-multus-service-operator.yaml",
        "{{ toJson .Values.resources }}",
        "{{ toJson .Values.resources",
    )?;
    let error = helm.run(&["lint", "--strict", &broken.path().display().to_string()]);
    ensure!(error.is_err(), "helm lint accepts a template that does not end");
    Ok(())
}

#[tokio::test]
#[ignore = "builds Helm: make test-apiserver"]
async fn chart_renders_the_objects_of_install_yaml() -> Result<()> {
    let helm = Helm::new(None).await?;
    let bundle = Bundle::render(&Source::read(&root())?, Platform::Openshift)?;
    let mut wanted = by_identity(xtask::release::install_objects(&root(), &bundle)?);
    // It must exist before Helm's release.
    wanted
        .remove("Namespace/multus-service")
        .context("no namespace")?;
    let crd = wanted
        .get_mut(&format!("CustomResourceDefinition/{CRD}"))
        .context("no CRD")?;
    crd["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
    let rendered = by_identity(helm.template(&chart(), "multus-service", &[])?);
    ensure!(
        rendered.keys().eq(wanted.keys()),
        "chart {:#?}\nkustomize {:#?}",
        rendered.keys(),
        wanted.keys()
    );
    for (name, object) in &wanted {
        ensure!(
            rendered[name] == *object,
            "chart {:#}\nkustomize {object:#}",
            rendered[name]
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "builds Helm: make test-apiserver"]
async fn values_reach_the_operators_pod() -> Result<()> {
    let helm = Helm::new(None).await?;
    let flags = [
        "--set=images.operator=r.example/a:v1,images.controller=r.example/b:v1,images.proxy=r.example/c:v1",
        "--set-json=imagePullSecrets=[{\"name\":\"pull\"}]",
        "--set-json=affinity={\"nodeAffinity\":{}}",
        "--set-json=tolerations=[]",
        "--set=resources.limits.memory=1Gi,nodeSelector.zone=a",
    ];
    let objects = by_identity(helm.template(&chart(), "elsewhere", &flags)?);
    let deployment = &objects["Deployment/multus-service-operator"];
    ensure!(
        text(deployment, "/metadata/namespace") == "elsewhere",
        "{deployment:#}"
    );
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let variable = |name: &str| {
        let found = olm::items(container, "/env").find(|variable| variable["name"] == name);
        found.map(|variable| variable["value"].clone())
    };
    ensure!(container["image"] == "r.example/a:v1", "{pod:#}");
    ensure!(
        variable("RELATED_IMAGE_CONTROLLER") == Some(json!("r.example/b:v1")),
        "{pod:#}"
    );
    ensure!(
        variable("RELATED_IMAGE_PROXY") == Some(json!("r.example/c:v1")),
        "{pod:#}"
    );
    ensure!(pod["imagePullSecrets"] == json!([{"name": "pull"}]), "{pod:#}");
    ensure!(
        pod["affinity"] == json!({"nodeAffinity": {}}) && pod["tolerations"] == json!([]),
        "{pod:#}"
    );
    ensure!(container["resources"]["limits"]["memory"] == "1Gi", "{pod:#}");
    ensure!(pod["nodeSelector"]["zone"] == "a", "{pod:#}");
    let binding = &objects["ClusterRoleBinding/multus-service-operator"];
    ensure!(
        text(binding, "/subjects/0/namespace") == "elsewhere",
        "{binding:#}"
    );

    let unknown = helm.template(&chart(), "elsewhere", &["--set=image.tag=v1"]);
    let message = unknown.err().context("an unknown value passes")?.to_string();
    ensure!(message.contains("image"), "{message}");
    Ok(())
}

#[tokio::test]
#[ignore = "builds Helm: make test-apiserver"]
async fn release_packages_the_chart_with_its_digests() -> Result<()> {
    let helm = Helm::new(None).await?;
    let mut source = Source::read(&root())?;
    let digest = |name: &str| format!("quay.io/other/{name}@sha256:{}", "1".repeat(64));
    let images = &mut source.release.images;
    (images.operator, images.controller, images.proxy) =
        (digest("operator"), digest("controller"), digest("proxy"));
    let folder = tempfile::tempdir()?;
    let package = xtask::release::chart(folder.path(), &source, folder.path())?;
    let objects = by_identity(helm.template(&package, "multus-service", &[])?);
    let container =
        &objects["Deployment/multus-service-operator"]["spec"]["template"]["spec"]["containers"][0];
    ensure!(text(container, "/image") == digest("operator"), "{container:#}");
    ensure!(
        text(container, "/env/1/value") == digest("proxy"),
        "{container:#}"
    );
    ensure!(
        folder.path().join("artifacthub-repo.yml").exists(),
        "no metadata of the repository"
    );
    Ok(())
}

/// One chart on one server: its objects have fixed names.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn chart_is_installed_upgraded_and_removed() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let (client, helm) = (
        server.client().await?,
        Helm::new(Some(server.kubeconfig())).await?,
    );
    let first = chart().display().to_string();
    let install = ["install", "multus-service", &first, "--namespace", "services"];
    rejects_a_namespace_that_admits_no_privileged_pod(&client, &helm, &install).await?;
    helm.run(&install)?;
    let image = image_of(&client).await?;
    ensure!(image == Source::read(&root())?.release.images.operator, "{image}");
    configure(&client).await?;

    // A second release cannot take the objects of the first.
    let second = helm.run(&["install", "second", &first, "--namespace", "default"]);
    let message = second.err().context("a second release is installed")?.to_string();
    ensure!(message.contains("multus-service"), "{message}");

    let next = edited(CRD_FILE, "names:\n", "names:\n    categories: [upgraded]\n")?;
    let next = next.path().display().to_string();
    let upgrade = ["upgrade", "multus-service", &next, "--namespace", "services"];
    helm.run(&[&upgrade[..], &["--set=images.operator=quay.io/other/operator:v9"]].concat())?;
    ensure!(
        image_of(&client).await? == "quay.io/other/operator:v9",
        "the image is that of before"
    );
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let categories = crds.get(CRD).await?.spec.names.categories;
    ensure!(
        categories == Some(vec!["upgraded".to_owned()]),
        "the CRD is not upgraded: {categories:?}"
    );

    let uninstall = ["uninstall", "multus-service", "--namespace", "services"];
    helm.run(&uninstall)?;
    only_the_configuration_is_left(&client).await?;

    // A new installation takes the CRD and the configuration.
    helm.run(&install)?;
    let categories = crds.get(CRD).await?.spec.names.categories;
    ensure!(
        categories != Some(vec!["upgraded".to_owned()]),
        "the CRD is that of before"
    );
    helm.run(&uninstall)?;
    Ok(())
}

async fn rejects_a_namespace_that_admits_no_privileged_pod(
    client: &Client,
    helm: &Helm,
    install: &[&str],
) -> Result<()> {
    let label = "pod-security.kubernetes.io/enforce";
    let namespace = |level: &str| -> Result<Namespace> {
        let value = json!({"metadata": {"name": "services", "labels": {label: level}}});
        Ok(serde_json::from_value(value)?)
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut created = namespaces
        .create(&PostParams::default(), &namespace("baseline")?)
        .await?;
    let message = helm
        .run(install)
        .err()
        .context("a restricted namespace is accepted")?
        .to_string();
    ensure!(
        message.contains(&format!(
            "kubectl label --overwrite namespace services {label}=privileged"
        )),
        "{message}"
    );
    created.metadata.labels = namespace("privileged")?.metadata.labels;
    namespaces
        .replace("services", &PostParams::default(), &created)
        .await?;
    Ok(())
}

async fn image_of(client: &Client) -> Result<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "services");
    let deployment = serde_json::to_value(deployments.get("multus-service-operator").await?)?;
    Ok(text(&deployment, "/spec/template/spec/containers/0/image").to_owned())
}

fn configurations(client: &Client) -> Api<api::MultusServiceConfig> {
    Api::all(client.clone())
}

async fn configure(client: &Client) -> Result<()> {
    let sample = Source::read(&root())?.sample;
    let sample: api::MultusServiceConfig = serde_json::from_value(sample)?;
    let created = configurations(client)
        .create(&PostParams::default(), &sample)
        .await;
    created.context("the chart's CRD rejects the sample")?;
    Ok(())
}

/// Uninstallation keeps the CRD, or it would delete the configuration of an operator that is gone.
async fn only_the_configuration_is_left(client: &Client) -> Result<()> {
    // A deleted CRD is served until its objects are gone.
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let deleted = crds.get(CRD).await?.metadata.deletion_timestamp;
    ensure!(deleted.is_none(), "Helm deleted the CRD");
    configurations(client)
        .get("cluster")
        .await
        .context("the configuration is gone")?;
    none::<ClusterRole>(&Api::all(client.clone())).await?;
    none::<ClusterRoleBinding>(&Api::all(client.clone())).await?;
    none::<ServiceAccount>(&Api::namespaced(client.clone(), "services")).await?;
    none::<Deployment>(&Api::namespaced(client.clone(), "services")).await
}

async fn none<K>(objects: &Api<K>) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=multus-service");
    let left = objects.list_metadata(&ours).await?.items;
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}
