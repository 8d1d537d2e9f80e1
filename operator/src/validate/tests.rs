//! What is asked for, by configuration and environment.

use super::*;
use crate::operands::Operands;
use api::MultusServiceConfig;
use k8s_openapi::jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};

fn observed(spec: &Value, deleted: bool) -> Observed {
    let mut metadata = json!({ "name": "cluster" });
    if deleted {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let config: MultusServiceConfig = serde_json::from_value(json!({
        "apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig", "metadata": metadata, "spec": spec,
    }))
    .unwrap();
    Observed {
        config,
        live: Operands::default(),
        proxy_pods: vec![],
        now: Timestamp::UNIX_EPOCH,
    }
}

fn release() -> ReleaseImages {
    ReleaseImages {
        controller: Some("release/controller".to_owned()),
        proxy: Some("release/proxy".to_owned()),
    }
}

fn installed(spec: &Value, images: &ReleaseImages) -> ValidatedConfig {
    match validate(&observed(spec, false), images) {
        Ok(Intent::Install(config)) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_spec_is_an_installation_with_defaults() {
    let want = ValidatedConfig {
        controller_image: "release/controller".to_owned(),
        proxy_image: "release/proxy".to_owned(),
        log_level: LogLevel::Normal,
        backend: Backend::Auto,
    };
    assert_eq!(installed(&json!({}), &release()), want);
}

#[test]
fn what_is_set_wins() {
    let spec = json!({
        "logLevel": "TraceAll",
        "controller": { "image": "mine/controller" },
        "proxy": { "image": "mine/proxy", "backend": "IPTables" },
    });
    let want = ValidatedConfig {
        controller_image: "mine/controller".to_owned(),
        proxy_image: "mine/proxy".to_owned(),
        log_level: LogLevel::TraceAll,
        backend: Backend::IpTables,
    };
    assert_eq!(installed(&spec, &release()), want);
    assert_eq!(installed(&spec, &ReleaseImages::default()), want);
}

#[rstest]
#[case::managed("Managed", false, false)]
#[case::removed("Removed", false, true)]
#[case::managed_but_deleted("Managed", true, true)]
#[case::unmanaged_but_deleted("Unmanaged", true, true)]
fn a_removal_is_one_whatever_the_images(#[case] state: &str, #[case] deleted: bool, #[case] removed: bool) {
    let observed = observed(&json!({ "managementState": state }), deleted);
    let intent = validate(&observed, &ReleaseImages::default());
    assert_eq!(matches!(intent, Ok(Intent::Remove(_))), removed, "{intent:?}");
}

#[test]
fn unmanaged_only_observes() {
    let intent = validate(
        &observed(&json!({ "managementState": "Unmanaged" }), false),
        &ReleaseImages::default(),
    );
    assert_eq!(intent, Ok(Intent::Observe));
}

#[rstest]
#[case::both(ReleaseImages::default(), &["spec.controller.image", "RELATED_IMAGE_CONTROLLER", "spec.proxy.image", "RELATED_IMAGE_PROXY"])]
#[case::set_and_empty(ReleaseImages { proxy: Some(String::new()), ..release() }, &["spec.proxy.image", "RELATED_IMAGE_PROXY"])]
fn a_missing_image_is_named_with_its_remedy(#[case] images: ReleaseImages, #[case] named: &[&str]) {
    let message = validate(&observed(&json!({}), false), &images)
        .unwrap_err()
        .to_string();
    assert!(named.iter().all(|name| message.contains(name)), "{message}");
    assert_eq!(message.lines().count() * 2, named.len(), "{message}");
}
