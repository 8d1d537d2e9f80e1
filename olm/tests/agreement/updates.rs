//! The update graph: of the catalog, and of a template that has everything.

use super::{root, source, with_upgrades};
use olm::{Bundle, Catalog, Platform, csv_name, graph};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn channel<'a>(blobs: &'a mut [Value], name: &str) -> &'a mut Value {
    blobs.iter_mut().find(|blob| blob["name"] == name).unwrap()
}

#[test]
fn every_update_ends_at_the_head() {
    for source in [source(), with_upgrades()] {
        let blobs = Catalog::render(&source).unwrap().blobs;
        updates_end_at_the_head(&blobs, &csv_name(&source.release.version));
        let bundles = graph::bundles(&blobs);
        let deprecated = graph::deprecated(&blobs);
        assert!(
            deprecated.iter().all(|name| bundles.contains(name)),
            "{deprecated:?}"
        );
    }
}

/// The newest version is the head of candidate-v0. A stable channel may not have it yet, and is the default once it exists.
fn updates_end_at_the_head(blobs: &[Value], newest: &str) {
    let channels = graph::channels(blobs);
    let names: Vec<_> = channels.iter().map(|channel| &*channel.name).collect();
    assert_eq!(names, ["candidate-v0", "stable-v0"][..names.len()]);
    assert_eq!(Some(&graph::default_channel(blobs)), names.last());
    assert_eq!(channels[0].head().unwrap().name, newest);
    let bundles = graph::bundles(blobs);
    for channel in &channels {
        assert_eq!(channel.simulate(), Ok(()));
        for entry in &channel.entries {
            assert!(
                bundles.contains(entry.name.as_str()),
                "{} has no bundle",
                entry.name
            );
        }
    }
    // An installation that changes from the candidates' channel to the stable one is updated there, unless it is newer.
    let Some(stable) = channels.get(1) else {
        return;
    };
    let head = stable.head().unwrap();
    let version = |name: &str| semver::Version::parse(name.split_once(".v").unwrap().1).unwrap();
    for name in bundles.iter().filter(|name| version(name) < version(&head.name)) {
        assert_eq!(stable.walk(name).unwrap().last(), Some(&head), "{name}");
    }
}

#[test]
fn version_can_be_a_candidate_before_it_is_stable() {
    let source = with_upgrades();
    let mut blobs = Catalog::render(&source).unwrap().blobs;
    let (current, next) = (
        csv_name(&source.release.version),
        "multus-service-operator.v99.0.0",
    );
    let entry = json!({"name": next, "replaces": current, "skipRange": ">=0.1.0 <99.0.0"});
    let entries = &mut channel(&mut blobs, "candidate-v0")["entries"];
    entries.as_array_mut().unwrap().push(entry);
    blobs.push(json!({"schema": "olm.bundle", "name": next}));
    updates_end_at_the_head(&blobs, next);
}

#[test]
fn first_version_replaces_nothing() {
    let source = source();
    let channel = graph::channels(&source.template).remove(0);
    let is_first = channel.entries[0].name == csv_name(&source.release.version);
    let csv = Bundle::render(&source, Platform::Openshift)
        .unwrap()
        .csv()
        .unwrap();
    let range = &csv["metadata"]["annotations"]["olm.skipRange"];
    let edges = [&csv["spec"]["replaces"], &csv["spec"]["skips"], range];
    assert_eq!(edges == [&Value::Null; 3], is_first, "{edges:?}");
}

/// The bundle of a file-based catalog has a digest: it must not change when its version becomes stable.
#[test]
fn promotion_changes_the_catalog_and_not_the_bundle() {
    let mut promoted = with_upgrades();
    let mut before = promoted.clone();
    before.template.retain(|blob| blob["name"] != "stable-v0");
    channel(&mut before.template, olm::PACKAGE)["defaultChannel"] = json!("candidate-v0");
    let bundle = |source, platform| Bundle::render(source, platform).unwrap();
    assert_eq!(
        bundle(&before, Platform::Openshift),
        bundle(&promoted, Platform::Openshift)
    );
    assert_ne!(
        Catalog::render(&before).unwrap(),
        Catalog::render(&promoted).unwrap()
    );

    // OperatorHub.io takes the channels from the bundle.
    let annotations = bundle(&promoted, Platform::Kubernetes).annotations().unwrap();
    let of = |name: &str| annotations[format!("operators.operatorframework.io.bundle.{name}.v1")].clone();
    assert_eq!(
        [of("channels"), of("channel.default")],
        ["candidate-v0,stable-v0", "stable-v0"]
    );

    promoted.template.clear();
    assert!(Bundle::render(&promoted, Platform::Openshift).is_err());
}

/// An administrator copies what the page names: it must exist.
#[test]
fn documented_channel_is_the_default() {
    let page = std::fs::read_to_string(root().join("docs/admin/install.md")).unwrap();
    let source = source();
    let default = graph::default_channel(&source.template);
    for line in [
        format!("\n  channel: {default}\n"),
        format!("the channel `{default}` in its ImageSetConfiguration"),
    ] {
        assert!(page.contains(&line), "docs/admin/install.md lacks {line:?}");
    }
}

#[test]
fn maturity_follows_the_version() {
    let maturity = |version: &str| {
        let mut source = with_upgrades();
        source.release = source.release.planned(&version.parse().unwrap());
        let name = csv_name(&source.release.version);
        let entries = &mut channel(&mut source.template, "candidate-v0")["entries"];
        entries.as_array_mut().unwrap().push(json!({"name": name}));
        let csv = Bundle::render(&source, Platform::Openshift)
            .unwrap()
            .csv()
            .unwrap();
        csv["spec"]["maturity"].clone()
    };
    let found = ["0.3.0-rc.1", "0.3.0", "1.0.0-rc.1", "1.0.0"].map(maturity);
    assert_eq!(found, ["alpha", "beta", "alpha", "stable"]);
    let names: BTreeSet<_> = found.iter().map(Value::to_string).collect();
    assert_eq!(names.len(), 3);
}
