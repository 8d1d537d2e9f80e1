//! The ClusterServiceVersion: the hand-written base, completed from the other files.
//!
//! Pure.

use crate::{PACKAGE, Platform, Source, csv_name, graph, source, text};
use api::names::OPERATOR;
use base64::Engine as _;
use serde_json::{Value, json};

/// Renders the ClusterServiceVersion of the source's release.
pub fn render(source: &Source, platform: Platform) -> Result<Value, source::Error> {
    let mut csv = source.base.clone();
    metadata(&mut csv, source, platform)?;
    let release = &source.release;
    let spec = &mut csv["spec"];
    spec["version"] = json!(release.version.to_string());
    spec["maturity"] = json!(maturity(&release.version));
    spec["description"] = json!(description(source, platform));
    spec["icon"] = json!([{
        "base64data": base64::engine::general_purpose::STANDARD.encode(&source.icon),
        "mediatype": "image/svg+xml",
    }]);
    let name = csv_name(&release.version);
    if let Some(entry) = graph::channels(&source.template)
        .iter()
        .find_map(|channel| channel.entry(&name))
    {
        if let Some(replaces) = &entry.replaces {
            spec["replaces"] = json!(replaces);
        }
        if !entry.skips.is_empty() {
            spec["skips"] = json!(entry.skips);
        }
    }
    spec["relatedImages"] = release
        .images
        .running()
        .map(|(name, image)| json!({"name": name, "image": image}))
        .into_iter()
        .collect();
    spec["install"]["spec"] = json!({
        "deployments": [deployment(source)?],
        "clusterPermissions": [permissions(source, "ClusterRole")?],
        "permissions": [permissions(source, "Role")?],
    });
    describe(&mut spec["customresourcedefinitions"]["owned"][0], source.crd()?);
    Ok(csv)
}

/// A release candidate is `alpha` and in no stable channel; what is promoted there is `beta` before 1.0 and `stable` after.
fn maturity(version: &semver::Version) -> &'static str {
    match version {
        version if !version.pre.is_empty() => "alpha",
        version if version.major == 0 => "beta",
        _ => "stable",
    }
}

/// The description, with the command of the platform in place of `{oc}`.
fn description(source: &Source, platform: Platform) -> String {
    let command = match platform {
        Platform::Openshift => "oc",
        Platform::Kubernetes => "kubectl",
    };
    source.description.trim_end().replace("{oc}", command)
}

fn metadata(csv: &mut Value, source: &Source, platform: Platform) -> Result<(), source::Error> {
    let release = &source.release;
    let metadata = &mut csv["metadata"];
    metadata["name"] = json!(csv_name(&release.version));
    // Fields of the base only, which `kubectl` requires.
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("namespace");
    }
    for architecture in &release.architectures {
        metadata["labels"][format!("operatorframework.io/arch.{architecture}")] = json!("supported");
    }
    let annotations = &mut metadata["annotations"];
    annotations["createdAt"] = json!(release.created.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    annotations["containerImage"] = json!(release.images.operator);
    // `oc adm must-gather --all-images` reads it: openshift/enhancements, enhancements/oc/must-gather.md.
    annotations["operators.openshift.io/must-gather-image"] = json!(release.images.tools);
    annotations["alm-examples"] = json!(pretty(&json!([source.sample])));
    annotations["operatorframework.io/initialization-resource"] = json!(pretty(&source.sample));
    let namespace = text(annotations, "/operatorframework.io~1suggested-namespace").to_owned();
    annotations["operatorframework.io/suggested-namespace-template"] =
        json!(pretty(&suggested_namespace(source, &namespace, platform)?));
    if let Some(range) = graph::channels(&source.template)
        .iter()
        .find_map(|channel| channel.entry(&csv_name(&release.version))?.skip_range.clone())
    {
        annotations["olm.skipRange"] = json!(range);
    }
    Ok(())
}

/// The namespace that the console creates: that of `config/manager`, on OpenShift with the patch of `config/openshift`.
fn suggested_namespace(source: &Source, name: &str, platform: Platform) -> Result<Value, source::Error> {
    let mut namespace = source.object("Namespace", name)?.clone();
    if platform == Platform::Openshift {
        let patches = source
            .openshift_patches
            .iter()
            .filter(|patch| crate::identity(patch) == crate::identity(&namespace))
            .cloned()
            .collect::<Vec<_>>();
        for patch in patches {
            merge(&mut namespace, &patch);
        }
    }
    Ok(namespace)
}

/// Applies a patch without lists, as kustomize does.
fn merge(object: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            for (name, value) in fields {
                merge(&mut object[name], value);
            }
        }
        value => *object = value.clone(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value is JSON")
}

/// Environment variable with the version of the release.
pub const VERSION_VARIABLE: &str = "OPERATOR_VERSION";

/// Deployment of `config/manager` with the release's images and version.
pub(crate) fn deployment(source: &Source) -> Result<Value, source::Error> {
    let deployment = source.object("Deployment", PACKAGE)?;
    let mut spec = deployment["spec"].clone();
    for container in spec["template"]["spec"]["containers"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        container["image"] = json!(source.release.images.operator);
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            let name = text(variable, "/name").to_owned();
            if let Some(image) = source.release.images.of_variable(&name) {
                variable["value"] = json!(image);
            }
        }
        // Without it the operator reports the version of its crate, which a release candidate shares with the release.
        if let Some(variables) = container["env"].as_array_mut() {
            variables.retain(|variable| text(variable, "/name") != VERSION_VARIABLE);
            variables.push(json!({"name": VERSION_VARIABLE, "value": source.release.version.to_string()}));
        }
    }
    Ok(json!({"name": PACKAGE, "label": deployment["metadata"]["labels"], "spec": spec}))
}

/// The rules of the operator's role of this kind in `config/rbac`.
fn permissions(source: &Source, kind: &'static str) -> Result<Value, source::Error> {
    Ok(json!({"serviceAccountName": OPERATOR, "rules": source.object(kind, OPERATOR)?["rules"]}))
}

/// Sets the descriptions of the owned API and its descriptors to those of the schema, which are generated from the Rust types. What the
/// base says of a descriptor follows.
fn describe(owned: &mut Value, crd: &Value) {
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    owned["description"] = schema["description"].clone();
    for (descriptors, part) in [("specDescriptors", "spec"), ("statusDescriptors", "status")] {
        for descriptor in owned[descriptors].as_array_mut().into_iter().flatten() {
            if let Some(field) = field(&schema["properties"][part], text(descriptor, "/path")) {
                let texts = [text(field, "/description"), text(descriptor, "/description")];
                descriptor["description"] = json!(texts.join("\n").trim_end());
            }
        }
    }
}

/// The schema of a field by its path, such as `proxy.backend`, or `imagePullSecrets[0].name` in the items of a list.
pub fn field<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(schema, |schema, name| match name.strip_suffix("[0]") {
            Some(list) => schema["properties"].get(list)?.get("items"),
            None => schema["properties"].get(name),
        })
}
