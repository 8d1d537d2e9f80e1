//! Write access to the configuration, which names images that run as root on every node.

use super::{committed, source};
use olm::{items, text};
use serde_json::{Value, json};

/// Roles with their rules, of `config/` and of the bundle, those in the ClusterServiceVersion included.
fn roles() -> Vec<Value> {
    let bundle = committed();
    let objects = [source().objects, bundle.manifests().unwrap()].concat();
    let mut roles: Vec<_> = objects
        .into_iter()
        .filter(|object| ["ClusterRole", "Role"].contains(&text(object, "/kind")))
        .collect();
    let csv = bundle.csv().unwrap();
    for list in ["/clusterPermissions", "/permissions"] {
        let granted = items(&csv["spec"]["install"]["spec"], list);
        roles.extend(granted.map(
            |granted| json!({"metadata": {"name": granted["serviceAccountName"]}, "rules": granted["rules"]}),
        ));
    }
    assert!(roles.len() > 8, "{roles:#?}");
    roles
}

fn writes_the_configuration(rule: &Value) -> bool {
    let names = |list: &str, ours: &str| {
        items(rule, list).any(|item| item == "*" || item.as_str().is_some_and(|item| item.starts_with(ours)))
    };
    let reads = |verb: &Value| ["get", "list", "watch"].iter().any(|read| verb == read);
    names("/apiGroups", "multusservice.cni.cncf.io")
        && names("/resources", "multusserviceconfigs")
        && !items(rule, "/verbs").all(reads)
}

#[test]
fn only_the_operator_writes_the_configuration() {
    let mut writers: Vec<_> = roles()
        .iter()
        .filter(|role| items(role, "/rules").any(writes_the_configuration))
        .map(|role| text(role, "/metadata/name").to_owned())
        .collect();
    writers.dedup();
    assert_eq!(writers, [api::names::OPERATOR]);
}

#[test]
fn no_role_is_added_to_edit_or_admin() {
    let aggregated = |role: &Value| -> Vec<String> {
        let labels = role["metadata"]["labels"].as_object().into_iter().flatten();
        let added = labels.filter(|(label, _)| label.contains("/aggregate-to-"));
        added
            .map(|(label, _)| label.rsplit("aggregate-to-").next().unwrap().to_owned())
            .collect()
    };
    let mut found: Vec<_> = roles().iter().flat_map(aggregated).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, ["cluster-reader", "view"]);
}
