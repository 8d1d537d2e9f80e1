//! Installs the product on the test cluster, the way a user would: images, `kubectl apply -k`, one object.
//!
//! Writes: objects on the test cluster, and a kustomize overlay in a temporary folder.

use super::{Narrator, timing};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use testbed::cluster;
use testbed::images::Image;

const OPERATOR: &str = api::names::OPERATOR;
const PROXY: &str = api::names::PROXY;
const NAMESPACE: &str = api::names::NAMESPACE;

/// Builds the images, loads them into both nodes, and installs the operator from `config/`.
pub fn operator(narrator: &Narrator) -> Result<()> {
    let images = xtask::images::product_images(&|line| narrator.say(line))?;
    release(narrator, &images, None)
}

/// Replaces the installed operator by a release of this version: the same programs as other images, with one manifest changed.
pub fn operator_of(narrator: &Narrator, version: &str) -> Result<()> {
    let images = xtask::images::release_images(version, &|line| narrator.say(line))?;
    release(narrator, &images, Some(version))
}

fn release(narrator: &Narrator, images: &[Image], version: Option<&str>) -> Result<()> {
    let say = |line: &str| narrator.say(line);
    cluster::load_images(images, &say)?;
    let overlay = tempfile::tempdir()?;
    fs::write(
        overlay.path().join("kustomization.yaml"),
        kustomization(overlay.path(), images, version)?,
    )?;
    narrator.say(
        "\nA user would type: kubectl apply -k config/default. Here a small overlay of it replaces the image names,\n\
         since the images were built just now and are in no registry.",
    );
    narrator.kubectl(&["apply", "-k", &overlay.path().display().to_string()])?;
    narrator.kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        &format!("deployment/{OPERATOR}"),
        "--timeout=300s",
    ])?;
    Ok(())
}

/// Applies the sample `MultusServiceConfig` and waits until it is Available.
pub fn config(narrator: &Narrator) -> Result<()> {
    let times = timing::measure(|| {
        apply_config(narrator)?;
        narrator.kubectl(&["get", "msc"])?;
        wait_for_config(narrator)
    })?;
    narrator.kubectl(&["get", "msc"])?;
    narrator.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?;
    if let Some(times) = times {
        narrator.say(&format!("\n{times}"));
    }
    Ok(())
}

/// Applies the sample and waits for nothing.
pub fn apply_config(narrator: &Narrator) -> Result<()> {
    let sample = repository().join("config/samples");
    narrator.kubectl(&["apply", "-k", &sample.display().to_string()])?;
    Ok(())
}

fn wait_for_config(narrator: &Narrator) -> Result<()> {
    narrator.kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Progressing=False",
        "--timeout=300s",
    ])?;
    narrator.kubectl(&[
        "wait",
        "msc/cluster",
        "--for=condition=Available",
        "--timeout=300s",
    ])?;
    Ok(())
}

/// `config/default` with the images of the test bed.
fn kustomization(folder: &Path, images: &[Image], version: Option<&str>) -> Result<String> {
    let default = relative(
        &folder.canonicalize()?,
        &repository().join("config/default").canonicalize()?,
    );
    let name = |target: &str| {
        let found = images
            .iter()
            .find(|image| image.name.contains(&format!("/{target}:")));
        found
            .map(|image| image.name.as_str())
            .with_context(|| format!("there is no image of {target}"))
    };
    let (repository, tag) = name("operator")?
        .rsplit_once(':')
        .context("an image name has a tag")?;
    let mut text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{default:?}]\n\
         images:\n- {{name: quay.io/multus-service/operator, newName: {repository:?}, newTag: {tag:?}}}\n\
         patches:\n- patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {{name: {OPERATOR}, namespace: {NAMESPACE}}}\n    \
         spec:\n      template:\n        spec:\n          containers:\n          - name: operator\n            env:\n"
    );
    for target in ["controller", "proxy", "tools"] {
        let variable = format!("RELATED_IMAGE_{}", target.to_uppercase());
        writeln!(
            text,
            "            - {{name: {variable}, value: {:?}}}",
            name(target)?
        )?;
    }
    if let Some(version) = version {
        writeln!(
            text,
            "            - {{name: OPERATOR_VERSION, value: {version:?}}}\n\
             - patch: |\n    apiVersion: rbac.authorization.k8s.io/v1\n    kind: ClusterRole\n    \
             metadata: {{name: {PROXY}, annotations: {{example.com/release: {version:?}}}}}"
        )?;
    }
    Ok(text)
}

/// kustomize accepts a base only by a relative path.
fn relative(from: &Path, to: &Path) -> String {
    let up = "../".repeat(from.components().count() - 1);
    format!("{up}{}", to.display().to_string().trim_start_matches('/'))
}

/// The folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_named_relative_to_the_overlay() {
        assert_eq!(
            relative(Path::new("/tmp/x"), Path::new("/src/config/default")),
            "../../src/config/default"
        );
    }
}
