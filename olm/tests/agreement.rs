//! `config/`, `bundle/`, `olm/catalog` and the Rust types agree; every check can fail.
//!
//! The tests compare the files themselves, not the output of the generator.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is a test, its helpers included"
)]

#[path = "agreement/breakages.rs"]
mod breakages;
#[path = "agreement/catalog.rs"]
mod catalog;
#[path = "agreement/catalog_pull_requests.rs"]
mod catalog_pull_requests;
#[path = "agreement/chart.rs"]
mod chart;
#[path = "agreement/community.rs"]
mod community;
#[path = "agreement/console.rs"]
mod console;
#[path = "agreement/inventory.rs"]
mod inventory;
#[path = "agreement/monitoring.rs"]
mod monitoring;
#[path = "agreement/notices.rs"]
mod notices;
#[path = "agreement/olm_v1.rs"]
mod olm_v1;
#[path = "agreement/project.rs"]
mod project;
#[path = "agreement/rbac.rs"]
mod rbac;
#[path = "agreement/registry_v1.rs"]
mod registry_v1;
#[path = "agreement/support.rs"]
mod support;
#[path = "agreement/updates.rs"]
mod updates;
#[path = "agreement/versions.rs"]
mod versions;

#[path = "agreement/workflows.rs"]
mod workflows;

#[path = "agreement/checks.rs"]
mod checks;

use checks::Finding;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::PolicyRule;
use olm::Platform;
use olm::bundle::Bundle;
use olm::release::repository;
use olm::{Catalog, Source, csv_name, items, text};
use rstest::rstest;
use semver::Version;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// This checkout, or the one that `make release` writes.
fn root() -> PathBuf {
    std::env::var_os("MULTUS_SERVICE_CHECKOUT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), PathBuf::from)
}

/// The checkout's files, read once.
fn source() -> Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    SOURCE.get_or_init(|| Source::read(&root()).unwrap()).clone()
}

/// This checkout before the first release.
fn first() -> Source {
    let mut source = source();
    source.release = source.release.planned(&Version::new(0, 1, 0));
    source.released.clear();
    source.template.retain(|blob| blob["schema"] == "olm.package");
    source.template[0]["defaultChannel"] = json!("candidate-v0");
    source.template.push(json!({
        "schema": "olm.channel", "package": olm::PACKAGE, "name": "candidate-v0",
        "entries": [{"name": csv_name(&source.release.version)}],
    }));
    source
}

/// This checkout with an update graph that has everything: candidates, skipped and deprecated versions, ranges, two channels.
fn with_upgrades() -> Source {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/upgrade");
    first().with_graph(&folder).unwrap()
}

/// The committed bundle.
fn committed() -> Bundle {
    Bundle::read(&root().join("bundle")).unwrap()
}

/// A bundle as it is released: with digests.
fn released() -> Bundle {
    static RELEASED: OnceLock<Bundle> = OnceLock::new();
    RELEASED.get_or_init(|| with_digests(source())).clone()
}

fn with_digests(mut source: Source) -> Bundle {
    let images = &mut source.release.images;
    for image in [
        &mut images.operator,
        &mut images.controller,
        &mut images.proxy,
        &mut images.tools,
    ] {
        *image = format!("{}@sha256:{}", repository(image), "0".repeat(64));
    }
    Bundle::render(&source, Platform::Openshift).unwrap()
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn manifest(bundle: &Bundle, kind: &str, name: &str) -> Value {
    let mut manifests = bundle.manifests().unwrap().into_iter();
    let found =
        manifests.find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name);
    found.unwrap_or_else(|| panic!("the bundle has no {kind} {name}"))
}

#[test]
fn bundle_is_generated_from_config() {
    let rendered = Bundle::render(&source(), Platform::Openshift).unwrap();
    let (committed, paths) = (committed(), |bundle: &Bundle| {
        bundle.files.keys().cloned().collect::<Vec<_>>()
    });
    assert_eq!(paths(&committed), paths(&rendered), "run `make bundle`");
    for (path, content) in &rendered.files {
        assert!(
            committed.files[path] == *content,
            "bundle/{path} is out of date: run `make bundle`"
        );
    }
}

#[test]
fn catalog_is_generated_from_template_and_bundle() {
    let file =
        std::fs::read_to_string(root().join("olm/catalog/multus-service-operator/catalog.yaml")).unwrap();
    let rendered = Catalog::render(&source()).unwrap();
    assert!(
        file == rendered.yaml(),
        "olm/catalog is out of date: run `make bundle`"
    );
    assert_eq!(Catalog::parse(&file).unwrap(), rendered);
}

#[test]
fn operator_has_the_permissions_of_config_rbac() {
    let csv = committed().csv().unwrap();
    let file = documents("config/rbac/operator_role.yaml");
    for (list, kind) in [("clusterPermissions", "ClusterRole"), ("permissions", "Role")] {
        let granted: Vec<&Value> = items(&csv, &format!("/spec/install/spec/{list}")).collect();
        assert_eq!(granted.len(), 1, "{list}");
        assert_eq!(granted[0]["serviceAccountName"], api::names::OPERATOR);
        let role = file.iter().find(|object| object["kind"] == kind).unwrap();
        let rules = |value: &Value| serde_json::from_value::<Vec<PolicyRule>>(value.clone()).unwrap();
        assert_eq!(rules(&granted[0]["rules"]), rules(&role["rules"]), "{list}");
        assert!(!rules(&role["rules"]).is_empty());
    }
}

#[rstest]
#[case("config/rbac/controller_role.yaml", "ClusterRole", api::names::CONTROLLER)]
#[case("config/rbac/controller_role.yaml", "Role", api::names::CONTROLLER)]
#[case("config/rbac/proxy_role.yaml", "ClusterRole", api::names::PROXY)]
fn operands_have_the_tested_permissions(#[case] file: &str, #[case] kind: &str, #[case] name: &str) {
    let documents = documents(file);
    let proved = documents.iter().find(|object| object["kind"] == kind).unwrap();
    assert_eq!(manifest(&committed(), kind, name)["rules"], proved["rules"]);
}

#[test]
fn deployment_equals_config_manager() {
    let csv = committed().csv().unwrap();
    let typed = |spec: &Value| -> Deployment {
        serde_json::from_value(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": spec}),
        )
        .unwrap()
    };
    let mut wanted = typed(&documents("config/manager/deployment.yaml")[0]["spec"]);
    let mut found = typed(&csv["spec"]["install"]["spec"]["deployments"][0]["spec"]);
    // The only object that the bundle adds.
    let container = &mut found
        .spec
        .as_mut()
        .unwrap()
        .template
        .spec
        .as_mut()
        .unwrap()
        .containers[0];
    let environment = container.env.as_mut().unwrap();
    let added = environment.pop().unwrap();
    assert_eq!(added.name, "OPERATOR_VERSION");
    assert_eq!(added.value, Some(source().release.version.to_string()));
    let images = [&mut wanted, &mut found].map(|deployment| {
        let containers = &mut deployment
            .spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .as_mut()
            .unwrap()
            .containers;
        let mut images = Vec::new();
        for container in containers {
            images.push(container.image.take().unwrap());
            for variable in container
                .env
                .iter_mut()
                .flatten()
                .filter(|variable| variable.name.starts_with("RELATED_IMAGE_"))
            {
                images.push(variable.value.take().unwrap());
            }
        }
        images
            .iter()
            .map(|image| repository(image).to_owned())
            .collect::<Vec<_>>()
    });
    assert_eq!(wanted, found);
    assert_eq!((images[0].len(), &images[0]), (4, &images[1]));
}

#[test]
fn crd_is_generated_from_the_rust_types() {
    let crd = manifest(
        &committed(),
        "CustomResourceDefinition",
        "multusserviceconfigs.multusservice.cni.cncf.io",
    );
    assert_eq!(crd, api::config::crd_document().unwrap());
}

#[test]
fn examples_equal_the_sample_and_can_be_decoded() {
    let csv = committed().csv().unwrap();
    let sample = documents("config/samples/multusservice_v1alpha1_multusserviceconfig.yaml").remove(0);
    let example = |key: &str| {
        serde_json::from_str::<Value>(csv["metadata"]["annotations"][key].as_str().unwrap()).unwrap()
    };
    assert_eq!(example("alm-examples"), json!([sample]));
    assert_eq!(example("operatorframework.io/initialization-resource"), sample);
    let typed: api::MultusServiceConfig = serde_json::from_value(sample.clone()).unwrap();
    let back = serde_json::to_value(typed.spec).unwrap();
    assert_eq!(back, sample["spec"], "the types drop a field of the sample");
}

#[test]
fn other_platforms_get_no_openshift_labels_on_the_namespace() {
    let bundle = |platform| Bundle::render(&first(), platform).unwrap();
    let (ours, other) = (bundle(Platform::Openshift), bundle(Platform::Kubernetes));
    let differing: Vec<_> = ours
        .files
        .iter()
        .filter(|(path, content)| other.files.get(*path) != Some(*content))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(
        differing,
        ["manifests/multus-service-operator.clusterserviceversion.yaml"]
    );
    assert_eq!(ours.files.len(), other.files.len());
    let has_openshift = |bundle: &Bundle| {
        let annotations = bundle.csv().unwrap()["metadata"]["annotations"].take();
        let key = "operatorframework.io/suggested-namespace-template";
        annotations[key]
            .as_str()
            .unwrap()
            .contains("openshift.io/node-selector")
    };
    assert!(has_openshift(&ours) && !has_openshift(&other));
}

#[test]
fn unsupported_kinds_stop_the_generator() {
    let mut source = source();
    source
        .objects
        .push(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "stray"}}));
    let error = Bundle::render(&source, Platform::Openshift).unwrap_err();
    assert!(error.to_string().contains("DaemonSet \"stray\""), "{error}");
}

#[test]
fn committed_bundle_lacks_only_digests() {
    let findings = checks::run(&committed()).unwrap();
    assert_eq!(but_for_digests(findings), Vec::<Finding>::new());
}

/// A planned version has tags, a released one has digests.
fn but_for_digests(mut findings: Vec<Finding>) -> Vec<Finding> {
    let images = source().release.images;
    if !images.operator.contains("@sha256:") {
        findings.retain(|finding| !finding.message.contains("is not pinned by digest"));
    }
    findings
}

#[test]
fn released_bundle_passes_every_check() {
    assert_eq!(checks::run(&released()).unwrap(), Vec::<Finding>::new());
}

#[test]
fn every_check_fails_on_a_broken_bundle() {
    let breakages = breakages::all();
    for (check, bundle) in &breakages {
        let findings = checks::run(bundle).unwrap();
        assert!(
            findings.iter().any(|finding| finding.check == *check),
            "{check} finds nothing: {findings:?}"
        );
    }
    let covered: BTreeSet<_> = breakages.iter().map(|(check, _)| *check).collect();
    assert_eq!(covered, checks::names().into_iter().collect());
}
