//! An invalid bundle for each check.

use super::released;
use olm::bundle::{self, Bundle};
use serde_json::{Value, json};

/// The name of a check, and a bundle that it must reject.
pub(super) fn all() -> Vec<(&'static str, Bundle)> {
    [scorecard_and_preflight(), pipeline_and_olm_v1()].concat()
}

fn scorecard_and_preflight() -> Vec<(&'static str, Bundle)> {
    let annotation = |key: &str| format!("/metadata/annotations/{}", key.replace('/', "~1"));
    let owned = "/spec/customresourcedefinitions/owned/0";
    let container = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";
    let metadata = "metadata/annotations.yaml";
    vec![
        (
            "basic-check-spec",
            broken(
                &annotation("alm-examples"),
                json!(r#"[{"kind": "MultusServiceConfig"}]"#),
            ),
        ),
        (
            "olm-bundle-validation",
            broken_file(
                metadata,
                "/annotations/operators.operatorframework.io.bundle.channels.v1",
                json!(""),
            ),
        ),
        (
            "olm-crds-have-validation",
            broken(
                &annotation("alm-examples"),
                json!(r#"[{"spec": {"colour": "red"}}]"#),
            ),
        ),
        (
            "olm-crds-have-resources",
            broken(&format!("{owned}/resources"), json!([])),
        ),
        (
            "olm-spec-descriptors",
            broken(&format!("{owned}/specDescriptors/0"), json!({"path": "colour"})),
        ),
        (
            "olm-status-descriptors",
            broken(&format!("{owned}/statusDescriptors"), json!([])),
        ),
        (
            "RequiredAnnotations",
            broken(
                &annotation("features.operators.openshift.io/tls-profiles"),
                json!("maybe"),
            ),
        ),
        (
            "AllImageRefsInRelatedImages",
            broken(
                &format!("{container}/image"),
                json!("quay.io/other/image@sha256:0"),
            ),
        ),
        (
            "FollowsRestrictedNetworkEnablementGuidelines",
            broken(
                "/spec/relatedImages/0/image",
                json!("quay.io/multus-service/operator:v1"),
            ),
        ),
        (
            "SecurityContextConstraintsInCSV",
            broken(
                "/spec/install/spec/clusterPermissions/0/rules/0",
                json!({"apiGroups": ["security.openshift.io"], "resources": ["securitycontextconstraints"], "verbs": ["use"]}),
            ),
        ),
    ]
}

fn pipeline_and_olm_v1() -> Vec<(&'static str, Bundle)> {
    let annotation = |key: &str| format!("/metadata/annotations/{}", key.replace('/', "~1"));
    let owned = "/spec/customresourcedefinitions/owned/0";
    let container = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";
    vec![
        ("check_required_fields", broken("/spec/maintainers", json!([]))),
        (
            "check_recommended_fields",
            broken(&annotation("createdAt"), Value::Null),
        ),
        ("check_operator_name", broken("/spec/version", json!("0.0.7"))),
        (
            "check_minkubeversion",
            broken("/spec/minKubeVersion", json!("1.25.0")),
        ),
        ("check_network_policy_presence", with("NetworkPolicy")),
        ("check_one_icon", broken("/spec/icon", json!([{}, {}]))),
        ("olmv1-kinds", with("DaemonSet")),
        (
            "olmv1-install-modes",
            broken(
                "/spec/installModes",
                json!([{"type": "OwnNamespace", "supported": true}]),
            ),
        ),
        (
            "olmv1-unsupported",
            broken(
                "/spec/customresourcedefinitions",
                json!({"owned": [], "required": [{"name": "nads"}]}),
            ),
        ),
        (
            "olmv1-unique",
            broken(
                "/spec/install/spec/deployments",
                json!([{"name": "a"}, {"name": "a"}]),
            ),
        ),
        (
            "olmv1-owned-crds",
            broken(&format!("{owned}/name"), json!("others.example.com")),
        ),
        (
            "olmv1-environment",
            broken(
                &format!("{container}/env/0/name"),
                json!("OPERATOR_CONDITION_NAME"),
            ),
        ),
    ]
}

/// Breaks the ClusterServiceVersion at a JSON pointer.
fn broken(pointer: &str, value: Value) -> Bundle {
    broken_file(
        &format!("manifests/{}.clusterserviceversion.yaml", olm::PACKAGE),
        pointer,
        value,
    )
}

fn broken_file(path: &str, pointer: &str, value: Value) -> Bundle {
    let mut bundle = released();
    let mut object: Value = serde_saphyr::from_str(&bundle.files[path]).unwrap();
    *object
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{path} has no {pointer}")) = value;
    bundle.files.insert(path.to_owned(), bundle::yaml(&object));
    bundle
}

fn with(kind: &str) -> Bundle {
    let mut bundle = released();
    bundle.files.insert(
        "manifests/more.yaml".to_owned(),
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: more}}\n"),
    );
    bundle
}
