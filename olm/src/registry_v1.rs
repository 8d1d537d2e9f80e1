//! The objects that OLM v1 renders from a bundle in mode AllNamespaces.
//!
//! Pure. Follows operator-controller's `rukpak/render/registryv1`: service accounts and roles from the ClusterServiceVersion's
//! permissions (with generated names, all of them cluster-wide, as AllNamespaces turns Roles into ClusterRoles), its deployments,
//! and the bundle's other manifests in the install namespace. No OperatorCondition, no Role for one, no environment variable of OLM
//! v0.

use crate::{Bundle, bundle, items, text};
use serde_json::{Value, json};

/// Kinds of [`bundle::KINDS`] that are cluster-scoped in OLM v1, after operator-registry's `supported_resources.go`.
const CLUSTER_SCOPED: [&str; 10] = [
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "ConsoleYAMLSample",
    "ConsoleQuickStart",
    "ConsoleCLIDownload",
    "ConsoleLink",
    "ConsolePlugin",
    "VerticalPodAutoscaler",
];

/// Renders every object, in an order in which they can be applied.
pub fn objects(bundle: &Bundle, namespace: &str) -> Result<Vec<Value>, bundle::Error> {
    let csv = bundle.csv()?;
    let mut objects = Vec::new();
    for object in bundle.manifests()? {
        match text(&object, "/kind") {
            "ClusterServiceVersion" => {}
            kind if CLUSTER_SCOPED.contains(&kind) => objects.push(object),
            _ => objects.push(placed(object, namespace)),
        }
    }
    objects.extend(permissions(&csv, namespace));
    for deployment in items(&csv, "/spec/install/spec/deployments") {
        objects.push(self::deployment(&csv, deployment, namespace));
    }
    Ok(objects)
}

fn placed(mut object: Value, namespace: &str) -> Value {
    object["metadata"]["namespace"] = json!(namespace);
    object
}

fn permissions(csv: &Value, namespace: &str) -> Vec<Value> {
    let install = &csv["spec"]["install"]["spec"];
    // A former Role also lets its account read namespaces, as OLM v0 does in this mode.
    let namespaces =
        json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]});
    let promoted = items(install, "/permissions").cloned().map(|mut permission| {
        if let Some(rules) = permission["rules"].as_array_mut() {
            rules.push(namespaces.clone());
        }
        permission
    });
    let granted = items(install, "/clusterPermissions").cloned().chain(promoted);
    let mut objects = Vec::new();
    for (number, permission) in granted.enumerate() {
        let permission = &permission;
        let account = text(permission, "/serviceAccountName");
        let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": namespace});
        let service_account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}});
        if !objects.contains(&service_account) {
            objects.push(service_account);
        }
        let name = format!("{}-{account}-{number}", text(csv, "/metadata/name"));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": permission["rules"],
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}, "subjects": [subject],
        }));
    }
    objects
}

fn deployment(csv: &Value, deployment: &Value, namespace: &str) -> Value {
    let mut spec = deployment["spec"].clone();
    // As OLM does: all annotations of the ClusterServiceVersion, unless the pod has its own, and the target namespaces of the
    // operator.
    let annotations = &mut spec["template"]["metadata"]["annotations"];
    for (key, value) in csv["metadata"]["annotations"].as_object().into_iter().flatten() {
        if annotations[key].is_null() {
            annotations[key] = value.clone();
        }
    }
    annotations["olm.targetNamespaces"] = json!("");
    spec["revisionHistoryLimit"] = json!(1);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": deployment["name"], "namespace": namespace, "labels": deployment["label"]},
        "spec": spec,
    })
}
