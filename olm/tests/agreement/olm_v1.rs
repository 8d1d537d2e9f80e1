//! The examples for OLM v1 in `config/olmv1`, and the rights of their service account.

use super::{committed, documents, root, source};
use olm::installer::{self, EXTENSION, INSTALLER, covers};
use olm::{PACKAGE, Source, graph, items, npm_range, registry_v1, text};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// `ClusterExtension` v1 of operator-controller, as far as the examples use it. An unknown field is an error, as with `oc apply`.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extension {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    namespace: String,
    /// Required in OpenShift 4.18 to 4.22, ignored by newer versions.
    service_account: Option<Metadata>,
    source: CatalogSource,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CatalogSource {
    source_type: SourceType,
    catalog: Selection,
}

#[derive(Deserialize, Debug)]
enum SourceType {
    Catalog,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    package_name: String,
    channels: Vec<String>,
    version: String,
}

const EXAMPLES: [(&str, bool); 2] = [
    ("config/olmv1/clusterextension.yaml", false),
    ("config/olmv1/clusterextension-openshift-4.18.yaml", true),
];

/// Why OLM v1 would reject an example, or install something else.
fn fault(source: &Source, example: &Value, needs_account: bool) -> Option<String> {
    let extension: Extension = match serde_json::from_value(example.clone()) {
        Ok(extension) => extension,
        Err(error) => return Some(error.to_string()),
    };
    let Spec {
        namespace,
        service_account,
        source: CatalogSource {
            source_type: SourceType::Catalog,
            catalog,
        },
    } = extension.spec;
    let account = service_account.map(|account| account.name);
    let kind = [
        &*extension.api_version,
        &*extension.kind,
        &*extension.metadata.name,
    ];
    let range = catalog.version.as_str();
    let checks = [
        (
            kind == ["olm.operatorframework.io/v1", "ClusterExtension", EXTENSION],
            "kind or name",
        ),
        (namespace == api::names::NAMESPACE, "namespace"),
        (
            account == needs_account.then(|| INSTALLER.to_owned()),
            "service account",
        ),
        (catalog.package_name == PACKAGE, "package"),
        (
            catalog.channels == [graph::default_channel(&source.template)],
            "channel",
        ),
        (
            range.len() <= 64 && npm_range::contains(range, &source.release.version) == Some(true),
            "version",
        ),
    ];
    let wrong = checks.iter().find(|(is_right, _)| !is_right);
    wrong.map(|(_, what)| (*what).to_owned())
}

#[test]
fn examples_for_olm_v1_are_accepted() {
    let source = source();
    for (path, needs_account) in EXAMPLES {
        let [example] = &documents(path)[..] else {
            panic!("{path} has one document");
        };
        assert_eq!(fault(&source, example, needs_account), None, "{path}");
        // Those of the other OpenShift versions.
        assert_eq!(
            fault(&source, example, !needs_account).unwrap(),
            "service account",
            "{path}"
        );
    }
}

#[test]
fn broken_examples_for_olm_v1_are_rejected() {
    let (source, whole) = (source(), documents(EXAMPLES[0].0).remove(0));
    let breakages = [
        (
            "unknown field `serviceAccountName`",
            "/spec",
            json!({"serviceAccountName": "x"}),
        ),
        (
            "unknown variant `Image`",
            "/spec/source/sourceType",
            json!("Image"),
        ),
        (
            "missing field `catalog`",
            "/spec/source",
            json!({"sourceType": "Catalog"}),
        ),
        (
            "invalid type: string",
            "/spec/source/catalog/channels",
            json!("candidate-v0"),
        ),
        ("channel", "/spec/source/catalog/channels", json!(["nightly"])),
        (
            "package",
            "/spec/source/catalog/packageName",
            json!("multus-service"),
        ),
        ("version", "/spec/source/catalog/version", json!(">=9.0.0")),
        (
            "kind or name",
            "/apiVersion",
            json!("olm.operatorframework.io/v1alpha1"),
        ),
    ];
    for (words, pointer, value) in breakages {
        let mut broken = whole.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        let found = fault(&source, &broken, false).unwrap();
        assert!(found.contains(words), "{words}: {found}");
    }
}

#[test]
fn installer_is_generated_from_the_bundle() {
    let file = std::fs::read_to_string(root().join("config/olmv1/installer.yaml")).unwrap();
    assert!(
        file == installer::yaml(&committed()).unwrap(),
        "config/olmv1/installer.yaml is out of date: run `make bundle`"
    );
}

/// What OLM v1 does with the service account, as rules: it writes each object, and may grant only what it may do itself.
fn needed() -> Vec<Value> {
    let mut needed = Vec::new();
    for object in registry_v1::objects(&committed(), api::names::NAMESPACE).unwrap() {
        let (group, _) = text(&object, "/apiVersion").split_once('/').unwrap_or_default();
        let resource = format!("{}s", text(&object, "/kind").to_lowercase());
        let any =
            json!({"apiGroups": [group], "resources": [resource], "verbs": ["create", "list", "watch"]});
        let mut named = any.clone();
        named["verbs"] = json!(["get", "update", "patch", "delete"]);
        named["resourceNames"] = json!([object["metadata"]["name"]]);
        needed.extend([any, named]);
        needed.extend(items(&object, "/rules").cloned());
    }
    needed
}

#[test]
fn installer_may_do_what_olm_v1_does_and_nothing_more() {
    let documents = documents("config/olmv1/installer.yaml");
    let role = documents
        .iter()
        .find(|object| object["kind"] == "ClusterRole")
        .unwrap();
    let rules: Vec<_> = items(role, "/rules").collect();
    let mut only = BTreeSet::new();
    for needed in needed() {
        let granting: Vec<_> = (0..rules.len())
            .filter(|number| covers(rules[*number], &needed))
            .collect();
        assert!(!granting.is_empty(), "nothing grants {needed}");
        if let [number] = granting[..] {
            only.insert(number);
        }
    }
    for (number, rule) in rules.iter().enumerate() {
        let of_olm = rule["resources"] == json!(["clusterextensions/finalizers"]);
        assert_eq!(only.contains(&number), !of_olm, "nothing needs {rule}");
    }
}
