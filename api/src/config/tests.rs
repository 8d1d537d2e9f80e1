//! Tests of the schema.

use super::*;
use crate::names::{CONFIG_NAME, GROUP};

fn schema() -> serde_json::Value {
    serde_json::to_value(&crd().spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone()
}

#[test]
fn the_crd_has_the_group_and_the_singleton_name() {
    let crd = crd();
    assert_eq!(
        (crd.spec.group.as_str(), crd.spec.scope.as_str()),
        (GROUP, "Cluster")
    );
    assert_eq!(crd.spec.names.short_names, Some(vec!["msc".to_owned()]));
    assert!(
        schema()["x-kubernetes-validations"][0]["rule"]
            .as_str()
            .unwrap()
            .contains(CONFIG_NAME)
    );
}

#[test]
fn an_object_without_a_spec_is_a_managed_one() {
    assert_eq!(schema()["properties"]["spec"]["default"], serde_json::json!({}));
    let config: MultusServiceConfig = serde_json::from_value(serde_json::json!({
        "apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig", "metadata": {"name": CONFIG_NAME}, "spec": {}
    }))
    .unwrap();
    assert_eq!(config.spec.management_state, ManagementState::Managed);
}

#[test]
fn every_field_is_documented() {
    fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                found.push(path.clone());
            }
            undocumented(&path, field, found);
            undocumented(&path, &field["items"], found);
        }
    }
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        undocumented(part, &schema()["properties"][part], &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_list_and_map_is_bounded() {
    fn unbounded(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (part, bound) in [("items", "maxItems"), ("additionalProperties", "maxProperties")] {
            if schema[part].is_object() {
                if schema[bound].is_null() {
                    found.push(path.to_owned());
                }
                unbounded(&format!("{path}[]"), &schema[part], found);
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{path}.{name}"), field, found);
        }
    }
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        unbounded(part, &schema()["properties"][part], &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

/// A default in the schema can never change; a default in the operator can.
#[test]
fn only_the_frozen_defaults_are_in_the_schema() {
    fn defaults(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !field["default"].is_null() {
                found.push(path.clone());
            }
            defaults(&path, field, found);
            defaults(&path, &field["items"], found);
        }
    }
    let mut found = Vec::new();
    defaults(
        "",
        &serde_json::json!({ "properties": { "spec": schema()["properties"]["spec"] } }),
        &mut found,
    );
    assert_eq!(found, [".spec", ".spec.managementState"]);
}
