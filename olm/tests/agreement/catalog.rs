//! Requirements of the community catalogs; every check can fail.

use super::{but_for_digests, checks, committed, source, with_digests, with_upgrades};
use olm::{Bundle, Catalog, Source};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A catalog as it is released: its own entry by digest.
fn catalog(source: &Source) -> (Catalog, Bundle) {
    let mut catalog = Catalog::render(source).unwrap();
    let bundle = with_digests(source.clone());
    let image = format!("quay.io/multus-service/bundle@sha256:{}", "0".repeat(64));
    catalog.blobs.pop();
    catalog
        .blobs
        .push(olm::catalog::entry(&bundle, Some(&image)).unwrap());
    (catalog, bundle)
}

fn broken(schema: &str, edit: impl Fn(&mut Value)) -> (Catalog, Bundle) {
    let (mut catalog, bundle) = catalog(&with_upgrades());
    let last = catalog.blobs.iter_mut().rfind(|blob| blob["schema"] == schema);
    edit(last.unwrap());
    (catalog, bundle)
}

#[test]
fn committed_catalog_lacks_only_digests() {
    let catalog = Catalog::render(&source()).unwrap();
    let findings = but_for_digests(checks::catalog::run(&catalog, &committed()).unwrap());
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn released_catalog_passes_every_check() {
    for source in [source(), with_upgrades()] {
        let (catalog, bundle) = catalog(&source);
        let findings = checks::catalog::run(&catalog, &bundle).unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }
}

#[test]
fn every_check_fails_on_a_broken_catalog() {
    let (mut without_the_one_before, replacing) = catalog(&with_upgrades());
    without_the_one_before
        .blobs
        .retain(|blob| blob["name"] != "multus-service-operator.v0.1.0-rc.2");
    let mut without_channels = catalog(&with_upgrades()).0;
    without_channels
        .blobs
        .retain(|blob| blob["schema"] != "olm.channel");
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
            (without_the_one_before, replacing.clone()),
        ),
        ("check_channels", (without_channels, replacing)),
        (
            "check_dangling_bundles",
            broken("olm.bundle", |blob| {
                blob["name"] = json!("multus-service-operator.v0.1.0-rc.9");
            }),
        ),
        (
            "maturity",
            broken("olm.channel", |blob| {
                let candidate = json!({"name": "multus-service-operator.v0.1.0-rc.2"});
                blob["entries"].as_array_mut().unwrap().push(candidate);
            }),
        ),
        (
            "maturity",
            broken("olm.package", |blob| {
                blob["defaultChannel"] = json!("candidate-v0");
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
