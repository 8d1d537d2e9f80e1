//! `charts/` is what `config/` and `olm/chart` give, and its values are documented.

use super::{root, source};
use olm::{Chart, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn committed() -> Chart {
    Chart::read(&root().join("charts")).unwrap()
}

fn file(path: &str) -> String {
    committed().files[&format!("multus-service/{path}")].clone()
}

#[test]
fn committed_chart_is_generated_from_config() {
    let rendered = Chart::render(&source()).unwrap();
    let committed = committed();
    let paths = |chart: &Chart| chart.files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&committed), paths(&rendered), "run `make bundle`");
    for (path, content) in &rendered.files {
        assert!(
            committed.files[path] == *content,
            "charts/{path} is out of date: run `make bundle`"
        );
    }
}

/// Paths such as `images.proxy`: the top level, and one more below `images`.
fn paths(values: &Value) -> BTreeSet<String> {
    let fields = |value: &Value| {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut paths: BTreeSet<String> = fields(values);
    if paths.remove("images") {
        let images: BTreeSet<String> = fields(&values["images"]);
        paths.extend(images.iter().map(|name| format!("images.{name}")));
    }
    paths
}

#[test]
fn every_value_is_used_validated_and_documented() {
    let values = paths(&serde_saphyr::from_str(&file("values.yaml")).unwrap());
    let chart = committed();
    let templates = chart
        .files
        .iter()
        .filter(|(path, _)| path.contains("/templates/"));
    let used: BTreeSet<String> = templates
        .flat_map(|(_, content)| content.split(".Values.").skip(1))
        .map(|rest| rest.split([' ', '}']).next().unwrap().to_owned())
        .collect();
    assert_eq!(used, values, "templates");

    let schema: Value = serde_json::from_str(&file("values.schema.json")).unwrap();
    let mut validated = schema["properties"].clone();
    // Helm adds it to every chart.
    validated.as_object_mut().unwrap().remove("global").unwrap();
    validated["images"] = schema["properties"]["images"]["properties"].clone();
    assert_eq!(paths(&validated), values, "values.schema.json");

    let readme = file("README.md");
    for value in &values {
        assert!(readme.contains(&format!("`{value}`")), "README.md lacks {value}");
    }
}

#[test]
fn helm_upgrades_the_crd_and_keeps_it_at_removal() {
    let chart = committed();
    let crds: Vec<_> = chart
        .files
        .iter()
        .filter(|(_, content)| content.contains("kind: CustomResourceDefinition"))
        .collect();
    let [(path, content)] = crds[..] else {
        panic!("{} files with the CRD", crds.len());
    };
    // Helm installs the folder crds/ once, and never upgrades it.
    assert!(path.starts_with("multus-service/templates/"), "{path}");
    let crd: Value = serde_saphyr::from_str(content).unwrap();
    assert_eq!(
        text(&crd, "/metadata/annotations/helm.sh~1resource-policy"),
        "keep"
    );
}

#[test]
fn an_object_of_unknown_scope_stops_the_generator() {
    let mut source = source();
    source
        .objects
        .push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "stray"}}));
    let error = Chart::render(&source).unwrap_err();
    assert!(error.to_string().contains("Service \"stray\""), "{error}");
}
