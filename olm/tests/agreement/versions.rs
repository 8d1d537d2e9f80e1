//! The version in all files that are generated from `config/` and `olm/`.

use super::{first, root, source};
use olm::Platform;
use olm::bundle::Error;
use olm::release::repository;
use olm::{Bundle, Catalog, Source, catalog, items, text};
use semver::Version;
use serde_json::{Value, json};

/// The checkout after its release was kept with digests, and the channel's next version planned.
fn after_a_release(entry: Option<Value>) -> Source {
    let mut source = first();
    let digest = |image: &str| format!("{}@sha256:{}", repository(image), "1".repeat(64));
    let images = &mut source.release.images;
    for image in [
        &mut images.operator,
        &mut images.controller,
        &mut images.proxy,
        &mut images.tools,
    ] {
        *image = digest(image);
    }
    images.bundle = Some(digest(&format!("{}/bundle", source.project.registry)));
    let kept = catalog::keep(&source).unwrap();
    source.released.push(kept);
    let channel = source
        .template
        .iter_mut()
        .find(|blob| blob["name"] == "candidate-v0");
    let entries = channel.unwrap()["entries"].as_array_mut().unwrap();
    entries.extend(entry);
    source.release = source.release.planned(&Version::new(0, 2, 0));
    source
}

fn next() -> Value {
    json!({"name": "multus-service-operator.v0.2.0", "replaces": "multus-service-operator.v0.1.0"})
}

#[test]
fn next_version_has_no_image_of_the_previous_one() {
    let source = after_a_release(Some(next()));
    let registry = &source.project.registry;
    let bundle = Bundle::render(&source, Platform::Openshift).unwrap();
    let csv = bundle.csv().unwrap();
    let container =
        &csv["spec"]["install"]["spec"]["deployments"][0]["spec"]["template"]["spec"]["containers"][0];
    let environment = |name: &str| {
        let found = items(container, "/env").find(|variable| variable["name"] == name);
        text(found.unwrap(), "/value").to_owned()
    };
    assert_eq!(text(container, "/image"), format!("{registry}/operator:v0.2.0"));
    assert_eq!(
        environment("RELATED_IMAGE_PROXY"),
        format!("{registry}/proxy:v0.2.0")
    );
    assert_eq!(environment("OPERATOR_VERSION"), "0.2.0");
    assert_eq!(csv["spec"]["replaces"], "multus-service-operator.v0.1.0");
    let channels = "operators.operatorframework.io.bundle.channels.v1";
    assert_eq!(bundle.annotations().unwrap()[channels], "candidate-v0");
    assert!(
        !bundle.files.values().any(|file| file.contains("sha256:")),
        "a digest stayed"
    );

    let blobs = Catalog::render(&source).unwrap().blobs;
    let image = |name: &str| {
        let blob = blobs
            .iter()
            .find(|blob| blob["schema"] == "olm.bundle" && blob["name"] == name);
        text(blob.unwrap(), "/image").to_owned()
    };
    assert_eq!(
        image("multus-service-operator.v0.2.0"),
        format!("{registry}/bundle:v0.2.0")
    );
    assert!(image("multus-service-operator.v0.1.0").contains("@sha256:111"));
}

#[test]
fn version_without_a_channel_is_rejected() {
    let error = Bundle::render(&after_a_release(None), Platform::Openshift).unwrap_err();
    assert!(
        matches!(&error, Error::NoChannel { name } if name == "multus-service-operator.v0.2.0"),
        "{error}"
    );
}

#[test]
fn published_entries_are_unchanged_when_the_bundle_changes() {
    let mut source = after_a_release(Some(next()));
    source.release = source.release.planned(&Version::new(0, 1, 0));
    source.description = "Something else".to_owned();
    let blobs = Catalog::render(&source).unwrap().blobs;
    let ours: Vec<_> = blobs
        .iter()
        .filter(|blob| blob["schema"] == "olm.bundle" && blob["name"] == "multus-service-operator.v0.1.0")
        .collect();
    assert_eq!(ours, [source.released.last().unwrap()]);
    let error = catalog::keep(&source).unwrap_err();
    assert!(matches!(error, Error::Published { .. }), "{error}");
}

#[test]
fn config_and_crates_have_the_version_of_the_release() {
    let release = source().release;
    let core = Version::new(
        release.version.major,
        release.version.minor,
        release.version.patch,
    );
    assert_eq!(core.to_string(), env!("CARGO_PKG_VERSION"));
    let file = std::fs::read_to_string(root().join("config/manager/deployment.yaml")).unwrap();
    assert_eq!(
        file,
        release.tagged(&file),
        "run `make bundle VERSION={}`",
        release.version
    );
    let next = release.planned(&Version::new(7, 8, 9)).tagged(&file);
    assert_eq!(next.matches(":v7.8.9\n").count(), 4, "{next}");
    assert_eq!(next.lines().count(), file.lines().count());
    let example = std::fs::read_to_string(root().join("config/default/kustomization.yaml")).unwrap();
    assert_eq!(
        example.matches(&format!("v{}\n", release.version)).count(),
        4,
        "{example}"
    );
}

#[test]
fn suggested_namespace_matches_the_platform() {
    let suggested = |platform| -> Value {
        let csv = Bundle::render(&source(), platform).unwrap().csv().unwrap();
        let template = text(
            &csv,
            "/metadata/annotations/operatorframework.io~1suggested-namespace-template",
        );
        serde_json::from_str(template).unwrap()
    };
    let (openshift, kubernetes) = (suggested(Platform::Openshift), suggested(Platform::Kubernetes));
    let monitored = "/metadata/labels/openshift.io~1cluster-monitoring";
    let selector = "/metadata/annotations/openshift.io~1node-selector";
    assert_eq!(openshift.pointer(monitored), Some(&json!("true")));
    assert_eq!(openshift.pointer(selector), Some(&json!("")));
    assert_eq!(
        [kubernetes.pointer(monitored), kubernetes.pointer(selector)],
        [None, None]
    );
    let enforced = "/metadata/labels/pod-security.kubernetes.io~1enforce";
    assert_eq!(openshift.pointer(enforced), kubernetes.pointer(enforced));
}
