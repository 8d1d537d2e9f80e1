//! Requirements of the community catalogs; every check can fail.

use super::{but_for_digests, checks, committed, released, root, source};
use olm::{Bundle, Catalog};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A catalog as it is released: its own entry by digest.
fn catalog() -> Catalog {
    let mut catalog = Catalog::render(&source()).unwrap();
    let image = format!("quay.io/multus-service/bundle@sha256:{}", "0".repeat(64));
    catalog.blobs.pop();
    catalog
        .blobs
        .push(olm::catalog::entry(&released(), Some(&image)).unwrap());
    catalog
}

fn broken(schema: &str, edit: impl Fn(&mut Value)) -> (Catalog, Bundle) {
    let mut catalog = catalog();
    let last = catalog.blobs.iter_mut().rfind(|blob| blob["schema"] == schema);
    edit(last.unwrap());
    (catalog, released())
}

#[test]
fn committed_catalog_lacks_only_digests() {
    let catalog = Catalog::render(&source()).unwrap();
    let findings = but_for_digests(checks::catalog::run(&catalog, &committed()).unwrap());
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn released_catalog_passes_every_check() {
    let findings = checks::catalog::run(&catalog(), &released()).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn every_check_fails_on_a_broken_catalog() {
    let mut without_the_one_before = catalog();
    without_the_one_before
        .blobs
        .retain(|blob| blob["name"] != "multus-service-operator.v0.1.0-rc.2");
    let breakages = [
        (
            "check_no_bundle_object",
            broken("olm.bundle", |blob| {
                blob["properties"][0]["type"] = json!("olm.bundle.object");
            }),
        ),
        (
            "check_catalog_pinned",
            broken("olm.bundle", |blob| {
                blob["image"] = json!("quay.io/multus-service/bundle:v0.1.0");
            }),
        ),
        (
            "check_replaces_availability",
            (without_the_one_before, released()),
        ),
        (
            "check_channels",
            broken("olm.channel", |blob| blob["entries"] = json!([])),
        ),
        (
            "check_dangling_bundles",
            broken("olm.bundle", |blob| {
                blob["name"] = json!("multus-service-operator.v0.1.0-rc.9");
            }),
        ),
    ];
    for (check, (catalog, bundle)) in &breakages {
        let findings = checks::catalog::run(catalog, bundle).unwrap();
        assert!(
            findings.iter().any(|finding| finding.check == *check),
            "{check} finds nothing: {findings:?}"
        );
    }
    let covered: BTreeSet<_> = breakages.iter().map(|(check, _)| *check).collect();
    assert_eq!(covered, checks::catalog::names().into_iter().collect());
}

/// The graph consists of `replaces` and `skips` of each ClusterServiceVersion, not of version numbers.
#[test]
fn ci_yaml_selects_the_update_graph() {
    let file = std::fs::read_to_string(root().join("olm/ci.yaml")).unwrap();
    let ci: Value = serde_saphyr::from_str(&file).unwrap();
    assert_eq!(ci["updateGraph"], "replaces-mode");
    assert!(ci["reviewers"].is_array(), "{ci}");
    let fields: Vec<_> = ci.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["reviewers", "updateGraph"]);
}
