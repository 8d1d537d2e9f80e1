//! What others have put into an object of ours: a key of a map, a sidecar, `paused`, `hostPID`.
//!
//! Pure. Server-side apply leaves alone what it does not name, and a comparison of values cannot tell it from a default of the API
//! server. Who wrote a field is told by `metadata.managedFields`; what nobody is named for (defaults, admission) is legitimate.

use crate::apply::merge_patch;
use api::names::OPERATOR_FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields beside `spec` that others may write: metadata is everybody's, status belongs to controllers, and OpenShift keeps pull
/// secrets in service accounts.
const THEIRS: [&str; 4] = ["f:metadata", "f:status", "f:secrets", "f:imagePullSecrets"];
/// Where `kubectl rollout restart` writes. Who restarts pods changes nothing of them.
const RESTART: &str = "f:kubectl.kubernetes.io/restartedAt";

/// The merge patch that takes everything foreign out of the object; `None` when there is nothing.
pub(super) fn removal_patch<K: Resource + Serialize>(object: &K) -> Option<Value> {
    let live = serde_json::to_value(object).ok()?;
    let entries = object.meta().managed_fields.as_deref().unwrap_or_default();
    let fields = |entry: &ManagedFieldsEntry| entry.fields_v1.as_ref().map(|fields| fields.0.clone());
    let is_ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(OPERATOR_FIELD_MANAGER);
    let mut ours = Value::Object(Map::new());
    for fields in entries.iter().filter(is_ours).filter_map(fields) {
        merge(&mut ours, fields);
    }
    let mut clean = live.clone();
    for mut theirs in entries
        .iter()
        .filter(|entry| !is_ours(entry) && entry.subresource.as_deref() != Some("status"))
        .filter_map(fields)
    {
        drop_permitted(&mut theirs);
        clean = without(clean, &theirs, &ours);
    }
    let patch = merge_patch::patch(&live, &clean);
    patch
        .as_object()
        .is_some_and(|patch| !patch.is_empty())
        .then_some(patch)
}

fn merge(ours: &mut Value, more: Value) {
    match (ours, more) {
        (Value::Object(ours), Value::Object(more)) => {
            for (key, value) in more {
                merge(ours.entry(key).or_insert(Value::Null), value);
            }
        }
        (ours, more) => *ours = more,
    }
}

/// Takes out of the set what others may own.
fn drop_permitted(theirs: &mut Value) {
    if let Some(theirs) = theirs.as_object_mut() {
        theirs.retain(|key, _| !THEIRS.contains(&key.as_str()));
    }
    let metadata = theirs.pointer_mut("/f:spec/f:template/f:metadata");
    let Some(metadata) = metadata.and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata.get_mut("f:annotations").and_then(Value::as_object_mut)
        && annotations.remove(RESTART).is_some()
    {
        annotations.remove(".");
    }
}

/// `value` without what is in `theirs` and not in `ours`: sets of fields as `managedFields` spells them.
fn without(value: Value, theirs: &Value, ours: &Value) -> Value {
    let Value::Object(theirs) = theirs else {
        return value;
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(name, value)| {
                let key = format!("f:{name}");
                Some((name, keep(value, theirs.get(&key), ours.get(&key))?))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter_map(|item| {
                let key = theirs.keys().find(|key| key_matches(key, &item));
                let (theirs, ours) = key.map_or((None, None), |key| (theirs.get(key), ours.get(key)));
                keep(item, theirs, ours)
            });
            Value::Array(kept.collect())
        }
        other => other,
    }
}

fn keep(value: Value, theirs: Option<&Value>, ours: Option<&Value>) -> Option<Value> {
    let empty = Value::Object(Map::new());
    match (theirs, ours) {
        (None, _) => Some(value),
        // A leaf of ours is ours as a whole.
        (Some(_), Some(ours)) if is_leaf(ours) => Some(value),
        (Some(theirs), Some(ours)) => Some(without(value, theirs, ours)),
        // They made it; or they only changed something inside of it.
        (Some(theirs), None) if is_leaf(theirs) || theirs.get(".").is_some() => None,
        (Some(theirs), None) => Some(without(value, theirs, &empty)),
    }
}

fn is_leaf(set: &Value) -> bool {
    set.as_object().is_none_or(Map::is_empty)
}

/// Whether the key of a set (`k:{"name":"x"}`, `v:"x"`) means this element of a list.
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

    /// A DaemonSet that has our container and node selector, a field of `spec` and of the pod more, and who wrote that.
    fn object(spec: &Value, pod: &Value, theirs: &Value, subresource: &str) -> DaemonSet {
        let mut object = json!({
            "metadata": { "name": "x", "managedFields": [
                { "manager": OPERATOR_FIELD_MANAGER, "operation": "Apply", "fieldsV1": { "f:spec": { "f:template": {
                    "f:metadata": { "f:annotations": { "f:ours": {} } },
                    "f:spec": {
                        "f:nodeSelector": {}, "f:containers": { "k:{\"name\":\"ours\"}": { ".": {}, "f:name": {}, "f:image": {} } },
                    },
                }}}},
                { "manager": "somebody", "operation": "Update", "subresource": subresource, "fieldsV1": theirs },
            ]},
            "spec": { "selector": {}, "template": {
                "metadata": { "annotations": { "ours": "1" } },
                "spec": { "nodeSelector": { "os": "linux" }, "containers": [{ "name": "ours", "image": "i" }] },
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
        json!({ "containers": [{ "name": "evil" }, { "name": "ours", "image": "i" }] }),
        json!({ "f:containers": { "k:{\"name\":\"evil\"}": { ".": {}, "f:name": {} } } }),
        json!({ "containers": [{ "name": "ours", "image": "i" }] }),
    )]
    #[case::a_field_of_our_container(
        json!({ "containers": [{ "name": "ours", "image": "i", "tty": true }] }),
        json!({ "f:containers": { "k:{\"name\":\"ours\"}": { "f:tty": {} } } }),
        json!({ "containers": [{ "name": "ours", "image": "i" }] }),
    )]
    fn what_others_added_goes(#[case] pod: Value, #[case] theirs: Value, #[case] want: Value) {
        let theirs = json!({ "f:spec": { "f:template": { "f:spec": theirs } } });
        assert_eq!(
            removal_patch(&object(&json!({}), &pod, &theirs, "")),
            Some(of_pod(&want))
        );
    }

    #[rstest]
    #[case::what_is_ours_too(json!({}), json!({ "f:template": { "f:spec": { "f:nodeSelector": {} } } }), "")]
    #[case::the_same_container(
        json!({}),
        json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"ours\"}": { ".": {}, "f:name": {} } } } } }), "",
    )]
    #[case::a_status(json!({ "minReadySeconds": 1 }), json!({ "f:minReadySeconds": {} }), "status")]
    #[case::a_default(json!({ "minReadySeconds": 1 }), json!({}), "")]
    #[case::a_restart(
        json!({}),
        json!({ "f:template": { "f:metadata": { "f:annotations": { RESTART: {} } } } }), "",
    )]
    fn what_is_legitimate_stays(#[case] spec: Value, #[case] theirs: Value, #[case] subresource: &str) {
        let theirs = json!({ "f:spec": theirs, "f:metadata": { "f:labels": { "f:foreign": {} } } });
        assert_eq!(
            removal_patch(&object(&spec, &json!({}), &theirs, subresource)),
            None
        );
    }
}
