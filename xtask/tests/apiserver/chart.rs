//! What Helm renders from the chart, without a cluster.

use super::helm::Helm;
use anyhow::{Context as _, Result, ensure};
use olm::{Bundle, Platform, Source, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) const CRD: &str = "multusserviceconfigs.multusservice.cni.cncf.io";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn chart() -> PathBuf {
    root().join("charts/multus-service")
}

/// A copy of the chart with one text replaced in one file.
pub(crate) fn edited(file: &str, old: &str, new: &str) -> Result<TempDir> {
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
