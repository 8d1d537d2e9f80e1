//! Objects that OLM v1 renders from the bundle, following its `registryv1/generators.go`.

use super::committed;
use olm::{Bundle, items, registry_v1, text};
use serde_json::{Value, json};

fn objects(bundle: &Bundle) -> Vec<Value> {
    registry_v1::objects(bundle, "elsewhere").unwrap()
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    let found = objects.iter().filter(|object| text(object, "/kind") == kind);
    found.cloned().collect()
}

#[test]
fn operator_roles_are_cluster_wide_and_read_namespaces() {
    let objects = objects(&committed());
    let generated = |kind| -> Vec<Value> {
        let mut found = of_kind(&objects, kind);
        found.retain(|object| text(object, "/metadata/name").starts_with("multus-service-operator.v"));
        found
    };
    let (roles, bindings) = (generated("ClusterRole"), generated("ClusterRoleBinding"));
    assert_eq!((roles.len(), bindings.len()), (2, 2));
    let namespaces =
        json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]});
    let seeing = |role: &Value| items(role, "/rules").any(|rule| *rule == namespaces);
    assert_eq!(roles.iter().filter(|role| seeing(role)).count(), 1);
    assert!(
        bindings
            .iter()
            .all(|binding| binding["subjects"][0]["namespace"] == "elsewhere")
    );
    assert_eq!(of_kind(&objects, "ServiceAccount").len(), 1);
}

#[test]
fn objects_have_the_scope_of_their_kinds() {
    let mut bundle = committed();
    for (name, kind) in [
        ("plugin", "ConsolePlugin"),
        ("scaler", "VerticalPodAutoscaler"),
        ("map", "ConfigMap"),
    ] {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        bundle
            .files
            .insert(format!("manifests/{name}.yaml"), object.to_string());
    }
    let objects = objects(&bundle);
    let namespaces: Vec<_> = [
        "ConsolePlugin",
        "VerticalPodAutoscaler",
        "ClusterRole",
        "ConfigMap",
        "Role",
        "Deployment",
    ]
    .map(|kind| of_kind(&objects, kind)[0]["metadata"]["namespace"].clone())
    .into_iter()
    .collect();
    assert_eq!(namespaces[..3], [Value::Null, Value::Null, Value::Null]);
    assert!(
        namespaces[3..].iter().all(|namespace| namespace == "elsewhere"),
        "{namespaces:?}"
    );
}

#[test]
fn pod_has_annotations_of_csv_and_template_and_no_olm_v0_variables() {
    let bundle = committed();
    let mut csv = bundle.csv().unwrap();
    csv["metadata"]["annotations"]["openshift.io/required-scc"] = json!("anyuid");
    let path = format!("manifests/{}.clusterserviceversion.yaml", olm::PACKAGE);
    let mut edited = bundle.clone();
    edited.files.insert(path, csv.to_string());
    let deployment = of_kind(&objects(&edited), "Deployment").remove(0);
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(
        annotations["openshift.io/required-scc"], "restricted-v2",
        "the pod's own is kept"
    );
    assert_eq!(
        annotations["capabilities"],
        csv["metadata"]["annotations"]["capabilities"]
    );
    assert_eq!(annotations["olm.targetNamespaces"], "");
    assert_eq!(deployment["spec"]["revisionHistoryLimit"], 1);
    assert!(!deployment.to_string().contains("OPERATOR_CONDITION_NAME"));
}
