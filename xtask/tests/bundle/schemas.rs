//! JSON schemas for kubeconform, as the API server itself publishes them.
//!
//! Writes: CustomResourceDefinitions to the API server, and one file a kind to a folder.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes `<kind>-<version>.json` for every kind, those of `crds` included.
pub(crate) async fn write(client: &Client, crds: &[PathBuf], folder: &Path) -> Result<()> {
    let mut kinds = Vec::new();
    for path in crds {
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        api.patch(
            &crd.name_any(),
            &PatchParams::apply("bundle-test"),
            &Patch::Apply(&crd),
        )
        .await?;
        kinds.push(crd.spec.names.kind);
    }
    let definitions = testbed::wait::eventually(
        Duration::from_mins(1),
        "the API to publish the new kinds",
        async || {
            let published: Value = client
                .request(http::Request::get("/openapi/v2").body(Vec::new())?)
                .await?;
            let definitions = published["definitions"]
                .as_object()
                .context("no definitions")?
                .clone();
            let known = |kind: &String| definitions.keys().any(|name| name.ends_with(&format!(".{kind}")));
            Ok(kinds.iter().all(known).then_some(definitions))
        },
    )
    .await?;
    let mut definitions = Value::Object(definitions);
    tighten(&mut definitions);
    // The API takes what its schema of 2015 cannot say.
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = json!({"type": ["string", "integer"]});
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = json!({"type": ["string", "number"]});
    let mut written = 0;
    for definition in definitions.as_object().into_iter().flat_map(Map::values) {
        for kind in definition["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let mut schema = definition.clone();
            schema["definitions"] = closure(&definitions, definition);
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_lowercase();
            std::fs::write(
                folder.join(format!("{}-{}.json", text("kind"), text("version"))),
                schema.to_string(),
            )?;
            written += 1;
        }
    }
    ensure!(written > 100, "only {written} schemas were published");
    Ok(())
}

/// The definitions that a schema refers to, directly or not.
fn closure(definitions: &Value, schema: &Value) -> Value {
    let mut found = Map::new();
    let mut open = references(schema);
    while let Some(name) = open.pop() {
        if !found.contains_key(&name) {
            open.extend(references(&definitions[&name]));
            found.insert(name.clone(), definitions[&name].clone());
        }
    }
    Value::Object(found)
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(fields) => {
            let own = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.strip_prefix("#/definitions/"));
            own.map(str::to_owned)
                .into_iter()
                .chain(fields.values().flat_map(references))
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// Unknown fields are faults, as with `kubectl apply`; numbers or strings are either.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
                fields.remove("type");
            }
            let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            let is_object = fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type").is_none_or(|kind| kind == "object");
            if is_object && !open && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(tighten);
        }
        Value::Array(items) => items.iter_mut().for_each(tighten),
        _ => {}
    }
}
