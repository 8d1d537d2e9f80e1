//! The six tests of `operator-sdk scorecard`; each examines the bundle only, though operator-sdk runs it in a pod.
//! <https://sdk.operatorframework.io/docs/testing-operators/scorecard/>

use super::{Check, Subject};
use olm::csv::field;
use olm::{identity, items, text};
use serde_json::Value;

pub(super) const CHECKS: &[Check] = &[
    ("basic-check-spec", spec),
    ("olm-bundle-validation", bundle),
    ("olm-crds-have-validation", validation),
    ("olm-crds-have-resources", resources),
    ("olm-spec-descriptors", spec_descriptors),
    ("olm-status-descriptors", status_descriptors),
];

fn examples(subject: &Subject) -> Vec<Value> {
    serde_json::from_str(text(&subject.csv, "/metadata/annotations/alm-examples")).unwrap_or_default()
}

/// The schema of `spec` or `status` in the owned CustomResourceDefinition.
fn schema<'a>(subject: &'a Subject, part: &str) -> &'a Value {
    let crd = subject
        .manifests
        .iter()
        .find(|object| text(object, "/kind") == "CustomResourceDefinition");
    crd.map_or(&Value::Null, |crd| {
        &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    })
}

fn spec(subject: &Subject) -> Vec<String> {
    let examples = examples(subject);
    if examples.is_empty() {
        return vec!["alm-examples has no example".to_owned()];
    }
    let without = examples.iter().filter(|example| !example["spec"].is_object());
    without
        .map(|example| format!("the example {} has no spec", identity(example)))
        .collect()
}

fn bundle(subject: &Subject) -> Vec<String> {
    let csvs = subject
        .manifests
        .iter()
        .filter(|object| text(object, "/kind") == "ClusterServiceVersion")
        .count();
    let mut found: Vec<_> = (csvs != 1)
        .then(|| format!("expected exactly one ClusterServiceVersion, found {csvs}"))
        .into_iter()
        .collect();
    for key in [
        "mediatype.v1",
        "manifests.v1",
        "metadata.v1",
        "package.v1",
        "channels.v1",
        "channel.default.v1",
    ] {
        let key = format!("operators.operatorframework.io.bundle.{key}");
        if subject.annotations[&key].as_str().is_none_or(str::is_empty) {
            found.push(format!("metadata/annotations.yaml lacks {key}"));
        }
    }
    found
}

fn validation(subject: &Subject) -> Vec<String> {
    let mut found = Vec::new();
    for example in examples(subject) {
        for part in ["spec", "status"] {
            for key in example[part]
                .as_object()
                .into_iter()
                .flat_map(serde_json::Map::keys)
            {
                if field(schema(subject, part), key).is_none() {
                    found.push(format!("the example has {part}.{key}, which the schema lacks"));
                }
            }
        }
    }
    found
}

fn resources(subject: &Subject) -> Vec<String> {
    let owned = items(&subject.csv, "/spec/customresourcedefinitions/owned");
    owned
        .filter(|api| items(api, "/resources").next().is_none())
        .map(|api| format!("{} names no resources", text(api, "/name")))
        .collect()
}

/// Stricter than scorecard, which checks only the fields of the example: every field of the schema.
fn spec_descriptors(subject: &Subject) -> Vec<String> {
    descriptors(subject, "spec", "specDescriptors")
}

fn status_descriptors(subject: &Subject) -> Vec<String> {
    descriptors(subject, "status", "statusDescriptors")
}

fn descriptors(subject: &Subject, part: &str, descriptors: &str) -> Vec<String> {
    let (schema, paths) = (schema(subject, part), descriptor_paths(&subject.csv, descriptors));
    let missing = fields(schema)
        .filter(|name| !paths.contains(&name.as_str()))
        .map(|name| format!("{part}.{name} has no entry in {descriptors} of config/manifests/bases"));
    let stale = paths
        .iter()
        .filter(|path| field(schema, path).is_none())
        .map(|path| format!("{descriptors} has {path:?}, which the schema lacks"));
    missing.chain(stale).collect()
}

/// The names of a schema's own fields.
fn fields(schema: &Value) -> impl Iterator<Item = &String> {
    schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
}

/// The paths of an owned API's `specDescriptors` or `statusDescriptors`.
fn descriptor_paths<'a>(csv: &'a Value, descriptors: &str) -> Vec<&'a str> {
    items(
        csv,
        &format!("/spec/customresourcedefinitions/owned/0/{descriptors}"),
    )
    .map(|descriptor| text(descriptor, "/path"))
    .collect()
}
