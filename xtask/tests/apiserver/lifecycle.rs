//! What Helm installs, upgrades, keeps and rejects.

use super::chart::{CRD, chart, edited, root};
use super::helm::Helm;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource};
use olm::{Source, text};
use serde_json::json;
use std::fmt::Debug;
use std::process::Command;
use testbed::apiserver::{Apiserver, Options};
use testbed::{command, tools};

const CRD_FILE: &str =
    "templates/customresourcedefinition-multusserviceconfigs.multusservice.cni.cncf.io.yaml";

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
    let image = image_of(&client, "services").await?;
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
        image_of(&client, "services").await? == "quay.io/other/operator:v9",
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

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_installation_by_kubectl_becomes_a_release() -> Result<()> {
    let server = Apiserver::start(Options::default()).await?;
    let (client, helm) = (
        server.client().await?,
        Helm::new(Some(server.kubeconfig())).await?,
    );
    let kubectl = || tools::ensure(&[&tools::KUBECTL], &|_| {})?.main(&tools::KUBECTL);
    let kubectl = tokio::task::spawn_blocking(kubectl).await??;
    let default = root().join("config/default");
    let mut apply = Command::new(kubectl);
    apply.arg("--kubeconfig").arg(server.kubeconfig());
    command::output(apply.args(["apply", "-k"]).arg(default))?;
    configure(&client).await?;

    let chart = chart().display().to_string();
    let install = [
        "install",
        "multus-service",
        &chart,
        "--namespace",
        "multus-service",
    ];
    ensure!(helm.run(&install).is_err(), "Helm takes the objects of others");
    let values = [
        "--take-ownership",
        "--force-conflicts",
        "--set=images.operator=quay.io/other/operator:v9",
    ];
    helm.run(&[&install[..], &values].concat())?;
    let deployment = image_of(&client, "multus-service").await?;
    ensure!(deployment == "quay.io/other/operator:v9", "{deployment}");
    configurations(&client)
        .get("cluster")
        .await
        .context("the configuration is gone")?;
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

async fn image_of(client: &Client, namespace: &str) -> Result<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
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
