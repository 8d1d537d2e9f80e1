//! What OLM v1 makes of the bundle, as its `registryv1/generators.go` says.

use super::committed;
use olm::{Bundle, items, plain, text};
use serde_json::{Value, json};

fn objects(bundle: &Bundle) -> Vec<Value> {
    plain::objects(bundle, "elsewhere").unwrap()
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    let found = objects.iter().filter(|object| text(object, "/kind") == kind);
    found.cloned().collect()
}

#[test]
fn roles_of_the_operator_are_cluster_wide_and_see_namespaces() {
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
fn objects_are_where_their_kinds_belong() {
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
fn the_pod_has_the_annotations_of_both_and_nothing_of_olm_v0() {
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
