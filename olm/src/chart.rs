//! The Helm chart: the objects of `config/default` as templates.
//!
//! Pure, except for [`Chart::read`] and [`Chart::write`]. The CRD is a template that Helm keeps: Helm never upgrades what is in `crds/`,
//! and an uninstallation that deleted the CRD would delete the configuration without an operator that cleans the nodes.

use crate::{Bundle, Source, bundle, csv, identity, source, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

mod metadata;

/// The name of the chart.
pub const NAME: &str = "multus-service";

/// Kinds of namespaced objects: they are in the namespace of the Helm release.
const NAMESPACED: [&str; 4] = ["ServiceAccount", "Role", "RoleBinding", "Deployment"];
/// Kinds of objects in no namespace.
const CLUSTER: [&str; 3] = ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"];
/// Helm stores its release in the namespace, which must exist before the chart: the README creates it.
const ELSEWHERE: &str = "Namespace";

/// Scalars that become template expressions once the object is YAML.
const RELEASE_NAMESPACE: &str = "template-release-namespace";
const VALUE: &str = "template-value-";
/// A value without which its field is absent.
const OPTIONAL: &str = "template-optional-";

/// A failure to generate the chart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input files are not usable.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// `config/default` has an object of an unknown scope.
    #[error("failed to template {0}: name its kind in olm/src/chart.rs, with or without a namespace")]
    Kind(String),
}

/// A chart and what is published beside it: content by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Content by path, relative to `charts`.
    pub files: BTreeMap<String, String>,
}

impl Chart {
    /// Renders the chart of the source's release.
    pub fn render(source: &Source) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        let mut add = |path: &str, content: String| files.insert(format!("{NAME}/{path}"), content);
        for (path, content) in &source.chart {
            add(path, content.clone());
        }
        add("Chart.yaml", bundle::yaml(&metadata::metadata(source)?));
        add("values.yaml", metadata::values(source)?);
        for object in &source.objects {
            let kind = text(object, "/kind");
            if kind == ELSEWHERE {
                continue;
            }
            if !NAMESPACED.contains(&kind) && !CLUSTER.contains(&kind) {
                return Err(Error::Kind(identity(object)));
            }
            let name = format!(
                "templates/{}-{}.yaml",
                kind.to_lowercase(),
                text(object, "/metadata/name")
            );
            add(&name, template(&bundle::yaml(&parameterized(source, object)?)));
        }
        files.insert(
            "artifacthub-repo.yml".to_owned(),
            bundle::yaml(&metadata::repository(source)),
        );
        Ok(Self { files })
    }

    /// Reads the folder `charts`.
    pub fn read(folder: &Path) -> Result<Self, bundle::Error> {
        let Bundle { files } = Bundle::read(folder)?;
        Ok(Self { files })
    }

    /// Writes the folder `charts` and removes all other files there.
    pub fn write(&self, folder: &Path) -> Result<(), bundle::Error> {
        let files = self.files.clone();
        Bundle { files }.write(folder)
    }
}

/// The object with markers in place of what differs by release or values.
fn parameterized(source: &Source, object: &Value) -> Result<Value, source::Error> {
    let mut object = object.clone();
    let kind = text(&object, "/kind").to_owned();
    if NAMESPACED.contains(&&*kind) {
        object["metadata"]["namespace"] = json!(RELEASE_NAMESPACE);
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        subject["namespace"] = json!(RELEASE_NAMESPACE);
    }
    match &*kind {
        "CustomResourceDefinition" => {
            object["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
        }
        "Deployment" => object["spec"] = deployment(source)?,
        _ => {}
    }
    Ok(object)
}

/// The bundle's Deployment, with values.
fn deployment(source: &Source) -> Result<Value, source::Error> {
    let mut spec = csv::deployment(source)?["spec"].take();
    let pod = &mut spec["template"]["spec"];
    for field in ["nodeSelector", "tolerations"] {
        pod[field] = json!(format!("{VALUE}{field}"));
    }
    for field in ["affinity", "imagePullSecrets"] {
        pod[field] = json!(format!("{OPTIONAL}{field}"));
    }
    let container = &mut pod["containers"][0];
    container["resources"] = json!(format!("{VALUE}resources"));
    container["image"] = json!(format!("{VALUE}images.operator"));
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if let Some(name) = text(variable, "/name").strip_prefix("RELATED_IMAGE_") {
            variable["value"] = json!(format!("{VALUE}images.{}", name.to_lowercase()));
        }
    }
    Ok(spec)
}

/// Turns markers into template expressions. A value is written as JSON, which is YAML at every indentation.
fn template(yaml: &str) -> String {
    yaml.lines().map(line).collect()
}

fn line(line: &str) -> String {
    let line = line.replace("{{", "{{ \"{{\" }}");
    let marker = |prefix| line.split_once(prefix);
    if let Some((field, path)) = marker(OPTIONAL) {
        return format!("{{{{- with .Values.{path} }}}}\n{field}{{{{ toJson . }}}}\n{{{{- end }}}}\n");
    }
    if let Some((field, path)) = marker(VALUE) {
        return format!("{field}{{{{ toJson .Values.{path} }}}}\n");
    }
    if let Some(field) = line.strip_suffix(&format!(": {RELEASE_NAMESPACE}")) {
        // A name such as 1e3 would be a number.
        return format!("{field}: {{{{ .Release.Namespace | quote }}}}\n");
    }
    line.replace(RELEASE_NAMESPACE, "{{ .Release.Namespace }}") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_become_expressions_and_braces_stay_text() {
        let yaml = "namespace: template-release-namespace\n  tolerations: template-value-tolerations\n  affinity: template-optional-affinity\ntext: '{{x}}'\n";
        assert_eq!(
            template(yaml),
            "namespace: {{ .Release.Namespace | quote }}\n  tolerations: {{ toJson .Values.tolerations }}\n\
             {{- with .Values.affinity }}\n  affinity: {{ toJson . }}\n{{- end }}\ntext: '{{ \"{{\" }}x}}'\n"
        );
    }
}
