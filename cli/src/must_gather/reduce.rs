//! What is left of an object: no credentials, nothing of tenants that Services do not depend on.
//!
//! Pure.

use super::contents::Part;
use api::names::NETWORK_STATUS_ANNOTATION;
use serde_json::{Map, Value, json};

/// Annotation of a pod that asks for networks.
const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// In place of a value that is removed.
pub(super) const REDACTED: &str = "<redacted>";
/// Prefixes of environment variables of the product, whose values are no credentials.
const OWN_VARIABLES: [&str; 6] = [
    "OPERATOR_",
    "RELATED_IMAGE_",
    "POD_",
    "NODE_NAME",
    "WATCH_NAMESPACE",
    "MULTUS_SERVICE_",
];

/// Reduces an object; `None`: it is not part of the report.
pub(super) fn reduce(mut object: Value, part: Part) -> Option<Value> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        // It repeats the object, with the values that are removed below.
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    match part {
        Part::Whole => {}
        Part::Node => {
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("images");
            }
        }
        Part::AttachedPod => return attached_pod(&object),
    }
    redact_variables(&mut object);
    Some(object)
}

/// Keeps the fields of a pod that Services and the proxy depend on; `None`: it is not attached.
fn attached_pod(pod: &Value) -> Option<Value> {
    let annotations = pod["metadata"]["annotations"].as_object()?;
    let wanted = [NETWORK_STATUS_ANNOTATION, NETWORKS_ANNOTATION];
    let kept: Map<String, Value> = annotations
        .iter()
        .filter(|(key, _)| wanted.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if kept.is_empty() {
        return None;
    }
    let ports = |container: &Value| json!({ "name": container["name"], "ports": container["ports"] });
    let containers: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(ports)
        .collect();
    let mut metadata = pick(
        &pod["metadata"],
        &["name", "namespace", "uid", "labels", "deletionTimestamp"],
    );
    metadata["annotations"] = Value::Object(kept);
    let mut spec = pick(
        &pod["spec"],
        &["nodeName", "hostNetwork", "runtimeClassName", "readinessGates"],
    );
    spec["containers"] = Value::Array(containers);
    let status = pick(&pod["status"], &["phase", "conditions", "podIPs", "hostIPs"]);
    Some(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status }))
}

fn pick(object: &Value, fields: &[&str]) -> Value {
    let found = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), object.get(field)?.clone())));
    Value::Object(found.collect())
}

/// Removes the values of environment variables, such as the credentials of a proxy that a Subscription sets.
fn redact_variables(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_variables),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_array_mut().filter(|_| key == "env") {
                    Some(variables) => variables.iter_mut().for_each(redact_variable),
                    None => redact_variables(value),
                }
            }
        }
        _ => {}
    }
}

fn redact_variable(variable: &mut Value) {
    let name = variable["name"].as_str().unwrap_or_default();
    let is_own = OWN_VARIABLES.iter().any(|own| name.starts_with(own));
    if let Some(value) = variable.get_mut("value").filter(|_| !is_own) {
        *value = json!(REDACTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod with a credential in every place that is known to have some.
    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "web", "namespace": "shop", "managedFields": [{}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "planted",
                    "vault.example.com/token": "planted",
                    NETWORKS_ANNOTATION: "macvlan1",
                },
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{
                    "name": "a", "args": ["--password=planted"], "ports": [{ "containerPort": 80 }],
                    "env": [{ "name": "PASSWORD", "value": "planted" }],
                }],
                "volumes": [{ "name": "planted" }],
            },
            "status": { "phase": "Running", "message": "planted" },
        })
    }

    #[test]
    fn an_attached_pod_is_reduced_to_what_services_depend_on() {
        let reduced = reduce(pod(), Part::AttachedPod).unwrap();
        assert!(!reduced.to_string().contains("planted"), "{reduced}");
        assert_eq!(
            reduced["metadata"]["annotations"],
            json!({ NETWORKS_ANNOTATION: "macvlan1" })
        );
        assert_eq!(reduced["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
        assert_eq!(
            (&reduced["spec"]["nodeName"], &reduced["status"]["phase"]),
            (&json!("node-1"), &json!("Running"))
        );
    }

    #[test]
    fn a_pod_without_networks_is_not_part_of_it() {
        let mut other = pod();
        other["metadata"]["annotations"] = json!({ "a": "b" });
        assert_eq!(reduce(other, Part::AttachedPod), None);
    }

    #[test]
    fn values_of_foreign_variables_are_removed_wherever_they_are() {
        let variables = |value| {
            json!([
                { "name": "HTTPS_PROXY", "value": value },
                { "name": "RELATED_IMAGE_PROXY", "value": "quay.io/a" },
                { "name": "POD_NAME", "valueFrom": { "fieldRef": {} } },
            ])
        };
        let subscription = json!({ "spec": { "config": { "env": variables("http://a:planted@b") } } });
        let deployment = json!({ "spec": { "template": { "spec": { "containers": [{ "env": variables("planted") }] } } } });
        let reduced = reduce(subscription, Part::Whole).unwrap();
        assert_eq!(reduced["spec"]["config"]["env"], variables(REDACTED));
        let reduced = reduce(deployment, Part::Whole).unwrap();
        let container = &reduced["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], variables(REDACTED));
    }

    #[test]
    fn a_node_has_no_images_and_nothing_has_managed_fields() {
        let node = json!({ "metadata": { "name": "a", "managedFields": [{}] }, "status": { "images": [{}], "nodeInfo": {} } });
        let want = json!({ "metadata": { "name": "a" }, "status": { "nodeInfo": {} } });
        assert_eq!(reduce(node, Part::Node), Some(want));
    }
}
