//! What OpenShift's console and OperatorHub.io show of the ClusterServiceVersion.

use super::{committed, source};
use olm::csv::field;
use olm::{Bundle, Platform, items, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SELECT: &str = "urn:alm:descriptor:com.tectonic.ui:select:";
const TECTONIC: &str = "urn:alm:descriptor:com.tectonic.ui:";

/// The schema of `spec`, and the descriptors of its fields.
fn form(bundle: &Bundle) -> (Value, Vec<Value>) {
    let manifests = bundle.manifests().unwrap();
    let crd = manifests
        .iter()
        .find(|object| object["kind"] == "CustomResourceDefinition")
        .unwrap();
    let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    let csv = bundle.csv().unwrap();
    let descriptors = items(&csv, "/spec/customresourcedefinitions/owned/0/specDescriptors");
    (schema, descriptors.cloned().collect())
}

/// Widgets that offer what the API rejects, or not all that it accepts.
fn faults(schema: &Value, descriptors: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for descriptor in descriptors {
        let path = text(descriptor, "/path");
        let widgets: Vec<_> = items(descriptor, "/x-descriptors")
            .filter_map(Value::as_str)
            .collect();
        let offered: BTreeSet<_> = widgets
            .iter()
            .filter_map(|widget| widget.strip_prefix(SELECT))
            .collect();
        let Some(field) = field(schema, path) else {
            faults.push(format!("{path}: no such field"));
            continue;
        };
        let accepted: BTreeSet<_> = items(field, "/enum").filter_map(Value::as_str).collect();
        let has = |name: &str| {
            widgets
                .iter()
                .any(|widget| *widget == format!("{TECTONIC}{name}"))
        };
        if offered != accepted && !has("imagePullPolicy") {
            faults.push(format!(
                "{path}: offers {offered:?}, the API accepts {accepted:?}"
            ));
        }
        if has("updateStrategy") {
            faults.push(format!("{path}: the widget is that of a Deployment"));
        }
    }
    faults
}

#[test]
fn form_offers_what_the_api_accepts() {
    let (schema, descriptors) = form(&committed());
    assert_eq!(faults(&schema, &descriptors), [""; 0]);
    assert!(descriptors.len() > 40);
    let broken = |path: &str, widget: &str| {
        let mut descriptors = descriptors.clone();
        let found = descriptors
            .iter_mut()
            .find(|descriptor| descriptor["path"] == path);
        found.unwrap()["x-descriptors"] = json!([format!("{TECTONIC}{widget}")]);
        faults(&schema, &descriptors)
    };
    let of_strategy = broken("proxy.updateStrategy.type", "select:Recreate");
    assert!(
        of_strategy[0].contains("offers {\"Recreate\"}"),
        "{of_strategy:?}"
    );
    let of_deployment = broken("proxy.updateStrategy.type", "updateStrategy");
    assert_eq!(of_deployment.len(), 2, "{of_deployment:?}");
    assert_eq!(broken("tracing.endpoint", "text"), [""; 0]);
}

#[test]
fn form_warns_of_removed_and_picks_objects() {
    let (_, descriptors) = form(&committed());
    let of = |path: &str| {
        let found = descriptors.iter().find(|descriptor| descriptor["path"] == path);
        found.unwrap_or_else(|| panic!("no descriptor of {path}"))
    };
    let state = text(of("managementState"), "/description");
    assert!(
        state.starts_with("managementState indicates") && state.contains("\nWarning: Removed stops"),
        "{state}"
    );
    for (path, kind) in [
        ("imagePullSecrets[0].name", "Secret"),
        (
            "controller.priorityClassName",
            "scheduling.k8s.io:v1:PriorityClass",
        ),
        ("proxy.priorityClassName", "scheduling.k8s.io:v1:PriorityClass"),
    ] {
        let picker = format!("urn:alm:descriptor:io.kubernetes:{kind}");
        assert!(
            items(of(path), "/x-descriptors").any(|widget| *widget == picker),
            "{path}"
        );
        assert!(
            text(of(path), "/description").len() > 20,
            "{path} has no description"
        );
    }
}

#[test]
fn description_names_the_command_of_the_platform() {
    let description = |platform| {
        let csv = Bundle::render(&source(), platform).unwrap().csv().unwrap();
        text(&csv, "/spec/description").to_owned()
    };
    let (openshift, kubernetes) = (
        description(Platform::Openshift),
        description(Platform::Kubernetes),
    );
    let commands = |text: &str, command: &str| {
        text.split(['`', '\n'])
            .filter(|part| part.starts_with(&format!("{command} ")))
            .count()
    };
    assert_eq!([commands(&openshift, "oc"), commands(&kubernetes, "oc")], [2, 0]);
    assert_eq!(
        commands(&kubernetes, "kubectl"),
        commands(&openshift, "kubectl") + 2
    );
    for text in [&openshift, &kubernetes] {
        assert!(!text.contains("{oc}"), "{text}");
        assert!(text.contains("### Limits"), "{text}");
    }
}

#[test]
fn catalog_links_to_changelog_issues_and_support() {
    let csv = committed().csv().unwrap();
    let names: Vec<_> = items(&csv, "/spec/links")
        .map(|link| text(link, "/name"))
        .collect();
    assert_eq!(names, ["Documentation", "Source", "Changelog", "Issues"]);
    let support = text(&csv, "/metadata/annotations/support");
    let urls = items(&csv, "/spec/links")
        .map(|link| text(link, "/url"))
        .chain([support]);
    assert!(urls.into_iter().all(|url| url.starts_with("https://")), "{csv:#}");
}
