//! What is left of an object: no credentials, nothing of tenants that Services do not depend on.
//!
//! Pure.

use super::contents::Part;
use api::names::NETWORK_STATUS_ANNOTATION;
use serde_json::{Map, Value, json};

/// Annotation of a pod that asks for networks.
const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// Annotation with a copy of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// In place of a value that is removed.
pub(super) const REDACTED: &str = "<redacted>";
/// Environment variables of the product, whose values are no credentials, beside those that begin with `RELATED_IMAGE_`.
const OWN_VARIABLES: [&str; 7] = [
    "OPERATOR_VERSION",
    "OPERATOR_CONDITION_NAME",
    "POD_NAME",
    "POD_NAMESPACE",
    "NODE_NAME",
    "NODE_IP",
    "WATCH_NAMESPACE",
];
/// Domains whose annotations are no copies of objects and no credentials.
const KNOWN_DOMAINS: [&str; 5] = [
    "cni.cncf.io",
    "kubernetes.io",
    "k8s.io",
    "openshift.io",
    "operatorframework.io",
];
/// Beginning of the names of the product's objects.
const OWN_NAMES: &str = "multus-service";

/// Reduces an object; `None`: it is not part of the report.
pub(super) fn reduce(mut object: Value, part: Part) -> Option<Value> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let is_own = |name: &Value| name.as_str().is_some_and(|name| name.starts_with(OWN_NAMES));
    match part {
        Part::OwnName if !is_own(&object["metadata"]["name"]) => return None,
        Part::OwnEvent if !is_own(&object["involvedObject"]["name"]) => return None,
        Part::Whole | Part::OwnName | Part::OwnEvent => {}
        Part::Node => {
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("images");
            }
        }
        Part::AttachedPod => return attached_pod(&object),
    }
    redact(&mut object);
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

/// Removes, at any depth, values of environment variables and of HTTP headers, and annotations of unknown domains.
fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("env", Value::Array(variables)) => redact_values(variables, is_own),
                    ("httpHeaders", Value::Array(headers)) => redact_values(headers, |_| false),
                    ("annotations", Value::Object(annotations)) => annotations.retain(|key, _| is_known(key)),
                    (_, value) => redact(value),
                }
            }
        }
        _ => {}
    }
}

fn redact_values(all: &mut [Value], is_kept: fn(&str) -> bool) {
    for named in all {
        let is_kept = is_kept(named["name"].as_str().unwrap_or_default());
        if let Some(value) = named.get_mut("value").filter(|_| !is_kept) {
            *value = json!(REDACTED);
        }
    }
}

fn is_own(variable: &str) -> bool {
    OWN_VARIABLES.contains(&variable) || variable.starts_with("RELATED_IMAGE_")
}

fn is_known(annotation: &str) -> bool {
    let domain = annotation.split_once('/').map_or("", |(domain, _)| domain);
    annotation != LAST_APPLIED
        && KNOWN_DOMAINS
            .iter()
            .any(|known| domain == *known || domain.ends_with(&format!(".{known}")))
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
                { "name": "OPERATOR_TOKEN", "value": value },
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
    fn copies_of_objects_and_headers_are_removed_wherever_they_are() {
        let annotations = json!({
            "kapp.k14s.io/original": "planted", "note": "planted", LAST_APPLIED: "planted",
            "k8s.v1.cni.cncf.io/service-network": "macvlan1", "deployment.kubernetes.io/revision": "1",
        });
        let headers = json!([{ "name": "Authorization", "value": "planted" }]);
        let object = json!({
            "metadata": { "annotations": annotations },
            "spec": { "template": { "metadata": { "annotations": annotations }, "spec": { "httpHeaders": headers } } },
        });
        let text = reduce(object, Part::Whole).unwrap().to_string();
        assert!(!text.contains("planted"), "{text}");
        assert_eq!(
            (text.matches("macvlan1").count(), text.matches("revision").count()),
            (2, 2)
        );
    }

    #[test]
    fn objects_of_another_operator_in_the_namespace_are_not_part_of_it() {
        let named = |name: &str| json!({ "metadata": { "name": name }, "involvedObject": { "name": name } });
        for part in [Part::OwnName, Part::OwnEvent] {
            assert_eq!(reduce(named("other"), part), None);
            assert!(reduce(named("multus-service-proxy-a"), part).is_some());
        }
    }

    #[test]
    fn a_node_has_no_images_and_nothing_has_managed_fields() {
        let node = json!({ "metadata": { "name": "a", "managedFields": [{}] }, "status": { "images": [{}], "nodeInfo": {} } });
        let want = json!({ "metadata": { "name": "a" }, "status": { "nodeInfo": {} } });
        assert_eq!(reduce(node, Part::Node), Some(want));
    }
}
