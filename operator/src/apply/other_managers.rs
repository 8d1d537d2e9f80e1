//! Fields that other managers have added to an operand: a key of a map, a sidecar, `paused`, `hostPID`.
//!
//! Pure. Server-side apply keeps fields that it does not name, and a comparison of values cannot distinguish them from defaults.
//! `metadata.managedFields` names the manager of each field; fields without a manager (defaults, admission) are legitimate.

use crate::apply::merge_patch;
use api::names::OPERATOR_FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields beside `spec` that other managers may own: metadata is shared, status belongs to controllers, and OpenShift adds pull
/// secrets to service accounts.
const PERMITTED: [&str; 4] = ["f:metadata", "f:status", "f:secrets", "f:imagePullSecrets"];
/// Annotation of `kubectl rollout restart`: a restart does not change the pods.
const RESTART: &str = "f:kubectl.kubernetes.io/restartedAt";

/// The merge patch that removes the fields of other managers; `None` when there are none.
pub(super) fn removal_patch<K: Resource + Serialize>(object: &K) -> Option<Value> {
    let live = serde_json::to_value(object).ok()?;
    let entries = object.meta().managed_fields.as_deref().unwrap_or_default();
    let fields = |entry: &ManagedFieldsEntry| entry.fields_v1.as_ref().map(|fields| fields.0.clone());
    let is_operator = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(OPERATOR_FIELD_MANAGER);
    let mut owned = Value::Object(Map::new());
    for fields in entries.iter().filter(is_operator).filter_map(fields) {
        merge(&mut owned, fields);
    }
    let mut clean = live.clone();
    for mut foreign in entries
        .iter()
        .filter(|entry| !is_operator(entry) && entry.subresource.as_deref() != Some("status"))
        .filter_map(fields)
    {
        drop_permitted(&mut foreign);
        clean = without(clean, &foreign, &owned);
    }
    let patch = merge_patch::patch(&live, &clean);
    patch
        .as_object()
        .is_some_and(|patch| !patch.is_empty())
        .then_some(patch)
}

fn merge(owned: &mut Value, more: Value) {
    match (owned, more) {
        (Value::Object(owned), Value::Object(more)) => {
            for (key, value) in more {
                merge(owned.entry(key).or_insert(Value::Null), value);
            }
        }
        (owned, more) => *owned = more,
    }
}

/// Removes the fields that other managers may own from the set.
fn drop_permitted(foreign: &mut Value) {
    if let Some(foreign) = foreign.as_object_mut() {
        foreign.retain(|key, _| !PERMITTED.contains(&key.as_str()));
    }
    let metadata = foreign.pointer_mut("/f:spec/f:template/f:metadata");
    let Some(metadata) = metadata.and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata.get_mut("f:annotations").and_then(Value::as_object_mut)
        && annotations.remove(RESTART).is_some()
    {
        annotations.remove(".");
    }
}

/// Returns `value` without the fields in `foreign` that are not in `owned`; both are field sets in the format of `managedFields`.
fn without(value: Value, foreign: &Value, owned: &Value) -> Value {
    let Value::Object(foreign) = foreign else {
        return value;
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(name, value)| {
                let key = format!("f:{name}");
                Some((name, keep(value, foreign.get(&key), owned.get(&key))?))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter_map(|item| {
                let key = foreign.keys().find(|key| key_matches(key, &item));
                let (foreign, owned) = key.map_or((None, None), |key| (foreign.get(key), owned.get(key)));
                keep(item, foreign, owned)
            });
            Value::Array(kept.collect())
        }
        other => other,
    }
}

fn keep(value: Value, foreign: Option<&Value>, owned: Option<&Value>) -> Option<Value> {
    let empty = Value::Object(Map::new());
    match (foreign, owned) {
        (None, _) => Some(value),
        // We own a leaf as a whole.
        (Some(_), Some(owned)) if is_leaf(owned) => Some(value),
        (Some(foreign), Some(owned)) => Some(without(value, foreign, owned)),
        // The other manager added the element, or changed only fields inside of it.
        (Some(foreign), None) if is_leaf(foreign) || foreign.get(".").is_some() => None,
        (Some(foreign), None) => Some(without(value, foreign, &empty)),
    }
}

fn is_leaf(set: &Value) -> bool {
    set.as_object().is_none_or(Map::is_empty)
}

/// True when the key of a field set (`k:{"name":"x"}`, `v:"x"`) selects this list element.
fn key_matches(key: &str, item: &Value) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    match key.split_at_checked(2) {
        Some(("k:", fields)) => parsed(fields).is_some_and(|fields| {
            fields
                .as_object()
                .is_some_and(|fields| fields.iter().all(|(name, value)| item.get(name) == Some(value)))
        }),
        Some(("v:", value)) => parsed(value).as_ref() == Some(item),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DaemonSet;
    use rstest::rstest;
    use serde_json::json;

    /// A DaemonSet with our container and node selector, further fields in `spec` and in the pod, and their manager.
    fn object(spec: &Value, pod: &Value, foreign: &Value, subresource: &str) -> DaemonSet {
        let mut object = json!({
            "metadata": { "name": "x", "managedFields": [
                { "manager": OPERATOR_FIELD_MANAGER, "operation": "Apply", "fieldsV1": { "f:spec": { "f:template": {
                    "f:metadata": { "f:annotations": { "f:own": {} } },
                    "f:spec": {
                        "f:nodeSelector": {}, "f:containers": { "k:{\"name\":\"own\"}": { ".": {}, "f:name": {}, "f:image": {} } },
                    },
                }}}},
                { "manager": "another", "operation": "Update", "subresource": subresource, "fieldsV1": foreign },
            ]},
            "spec": { "selector": {}, "template": {
                "metadata": { "annotations": { "own": "1" } },
                "spec": { "nodeSelector": { "os": "linux" }, "containers": [{ "name": "own", "image": "i" }] },
            }},
        });
        let merge = |into: &mut Value, more: &Value| {
            for (key, value) in more.as_object().unwrap() {
                into[key] = value.clone();
            }
        };
        merge(&mut object["spec"], spec);
        merge(&mut object["spec"]["template"]["spec"], pod);
        serde_json::from_value(object).unwrap()
    }

    fn of_pod(pod: &Value) -> Value {
        json!({ "spec": { "template": { "spec": pod } } })
    }

    #[rstest]
    #[case::a_field(json!({ "hostPID": true }), json!({ "f:hostPID": {} }), json!({ "hostPID": null }))]
    #[case::a_structure(
        json!({ "securityContext": { "runAsUser": 0 } }),
        json!({ "f:securityContext": { ".": {}, "f:runAsUser": {} } }),
        json!({ "securityContext": null }),
    )]
    #[case::a_part_of_a_default(
        json!({ "securityContext": { "runAsUser": 0 } }),
        json!({ "f:securityContext": { "f:runAsUser": {} } }),
        json!({ "securityContext": { "runAsUser": null } }),
    )]
    #[case::a_sidecar(
        json!({ "containers": [{ "name": "evil" }, { "name": "own", "image": "i" }] }),
        json!({ "f:containers": { "k:{\"name\":\"evil\"}": { ".": {}, "f:name": {} } } }),
        json!({ "containers": [{ "name": "own", "image": "i" }] }),
    )]
    #[case::a_field_of_our_container(
        json!({ "containers": [{ "name": "own", "image": "i", "tty": true }] }),
        json!({ "f:containers": { "k:{\"name\":\"own\"}": { "f:tty": {} } } }),
        json!({ "containers": [{ "name": "own", "image": "i" }] }),
    )]
    fn fields_of_other_managers_are_removed(#[case] pod: Value, #[case] foreign: Value, #[case] want: Value) {
        let foreign = json!({ "f:spec": { "f:template": { "f:spec": foreign } } });
        assert_eq!(
            removal_patch(&object(&json!({}), &pod, &foreign, "")),
            Some(of_pod(&want))
        );
    }

    #[rstest]
    #[case::shared_field(json!({}), json!({ "f:template": { "f:spec": { "f:nodeSelector": {} } } }), "")]
    #[case::the_same_container(
        json!({}),
        json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"own\"}": { ".": {}, "f:name": {} } } } } }), "",
    )]
    #[case::a_status(json!({ "minReadySeconds": 1 }), json!({ "f:minReadySeconds": {} }), "status")]
    #[case::a_default(json!({ "minReadySeconds": 1 }), json!({}), "")]
    #[case::a_restart(
        json!({}),
        json!({ "f:template": { "f:metadata": { "f:annotations": { RESTART: {} } } } }), "",
    )]
    fn legitimate_fields_are_kept(#[case] spec: Value, #[case] foreign: Value, #[case] subresource: &str) {
        let foreign = json!({ "f:spec": foreign, "f:metadata": { "f:labels": { "f:foreign": {} } } });
        assert_eq!(
            removal_patch(&object(&spec, &json!({}), &foreign, subresource)),
            None
        );
    }
}
