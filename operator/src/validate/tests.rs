//! Validation of configuration and environment.

use super::*;
use crate::operands::Operands;
use crate::platform::openshift::OpenShift;
use crate::service_ranges::ServiceRanges;
use api::MultusServiceConfig;
use api::config::{Backend, LogLevel};
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
        ..Observed::default()
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
        Ok(Intent::Install(config)) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn monitoring_is_managed_unless_it_is_removed() {
    let of = |spec: Value| match validate(&observed(&spec, false), &release()) {
        Ok(Intent::Install(config)) => Ok(config.monitoring),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(of(json!({})), Ok(Some(Monitoring::default())));
    assert_eq!(
        of(json!({ "monitoring": { "managementState": "Removed" } })),
        Ok(None)
    );
    for good in ["release", "example.com/a_b.C-9"] {
        let labels = of(json!({ "monitoring": { "labels": { good: "x" } } }))
            .unwrap()
            .unwrap()
            .labels;
        assert_eq!(labels[good], "x");
    }
    for bad in [
        "",
        "-a",
        "a/",
        "/a",
        "A.B/c",
        "a..b/c",
        "a-.b/c",
        "a/b/c",
        "a b",
        &"a".repeat(64),
    ] {
        let error = of(json!({ "monitoring": { "labels": { bad: "x" } } })).unwrap_err();
        assert!(
            error.contains(&format!("spec.monitoring.labels: {bad:?} is not a label key")),
            "{error}"
        );
    }
}

#[test]
fn empty_spec_installs_with_defaults() {
    let config = installed(&json!({}), &release());
    assert_eq!(
        (config.controller_image.as_str(), config.proxy_image.as_str()),
        ("release/controller", "release/proxy")
    );
    assert_eq!(
        (config.log_level, config.backend, config.replicas),
        (LogLevel::Normal, Backend::Auto, 2)
    );
    assert!(config.network_policy && config.networks.isolated && config.overridden.is_empty());
    assert_eq!(
        config.networks.global_namespaces.iter().collect::<Vec<_>>(),
        ["default"]
    );
    assert_eq!(
        (config.runtime, config.controller, config.proxy),
        (None, PodSettings::default(), PodSettings::default())
    );
}

#[test]
fn configured_values_override_defaults() {
    let spec = json!({
        "logLevel": "TraceAll",
        "networkNamespaceIsolation": "Disabled",
        "globalNamespaces": [],
        "controller": { "image": "mine/controller", "replicas": 1 },
        "proxy": { "image": "mine/proxy", "backend": "IPTables" },
    });
    for images in [release(), ReleaseImages::default()] {
        let config = installed(&spec, &images);
        assert_eq!(
            (config.controller_image.as_str(), config.proxy_image.as_str()),
            ("mine/controller", "mine/proxy")
        );
        assert_eq!(
            (config.log_level, config.backend, config.replicas),
            (LogLevel::TraceAll, Backend::IpTables, 1)
        );
        assert_eq!(config.overridden, ["spec.controller.image", "spec.proxy.image"]);
        assert_eq!(
            config.networks,
            Networks {
                isolated: false,
                global_namespaces: BTreeSet::new()
            }
        );
    }
}

#[rstest]
#[case::plain("/run/crio/crio.sock", "/run/crio", "/run/crio/crio.sock")]
#[case::a_url("unix:///run/k3s/c.sock", "/run/k3s", "/run/k3s/c.sock")]
#[case::the_old_path("/var/run/crio/crio.sock", "/run/crio", "/run/crio/crio.sock")]
fn runtime_endpoint_is_parsed_in_every_form(
    #[case] endpoint: &str,
    #[case] folder: &str,
    #[case] path: &str,
) {
    let spec = json!({ "proxy": { "containerRuntimeEndpoint": endpoint } });
    let want = RuntimeSocket {
        folder: folder.to_owned(),
        path: path.to_owned(),
    };
    assert_eq!(installed(&spec, &release()).runtime, Some(want));
}

#[rstest]
#[case::managed("Managed", false, false)]
#[case::removed("Removed", false, true)]
#[case::managed_but_deleted("Managed", true, true)]
#[case::unmanaged_but_deleted("Unmanaged", true, true)]
fn removal_does_not_depend_on_images(#[case] state: &str, #[case] deleted: bool, #[case] removed: bool) {
    let observed = observed(&json!({ "managementState": state }), deleted);
    let intent = validate(&observed, &ReleaseImages::default());
    assert_eq!(matches!(intent, Ok(Intent::Remove(_))), removed, "{intent:?}");
}

#[test]
fn unmanaged_writes_nothing() {
    let intent = validate(
        &observed(&json!({ "managementState": "Unmanaged" }), false),
        &ReleaseImages::default(),
    );
    assert_eq!(intent, Ok(Intent::Observe));
}

#[rstest]
#[case::both(ReleaseImages::default(), &["spec.controller.image", "RELATED_IMAGE_CONTROLLER", "spec.proxy.image", "RELATED_IMAGE_PROXY"])]
#[case::set_and_empty(ReleaseImages { proxy: Some(String::new()), ..release() }, &["spec.proxy.image", "RELATED_IMAGE_PROXY"])]
fn missing_image_is_reported_with_its_remedy(#[case] images: ReleaseImages, #[case] named: &[&str]) {
    let message = validate(&observed(&json!({}), false), &images)
        .unwrap_err()
        .to_string();
    assert!(named.iter().all(|name| message.contains(name)), "{message}");
    assert_eq!(message.lines().count() * 2, named.len(), "{message}");
}

fn placed(pod: &Value) -> Operands {
    let mut pod = pod.clone();
    pod["containers"] = json!([]);
    let daemon_set = json!({ "metadata": { "name": "multus-service-proxy" }, "spec": { "selector": {}, "template": { "spec": pod } } });
    Operands {
        daemon_sets: vec![serde_json::from_value(daemon_set).unwrap()],
        ..Operands::default()
    }
}

#[rstest]
#[case::a_first_installation_may_wait_for_nodes(None, json!({ "zone": "b" }), true)]
#[case::from_some_to_some(Some(json!({})), json!({ "zone": "a" }), true)]
#[case::from_some_to_none(Some(json!({ "zone": "a" })), json!({ "zone": "b" }), false)]
#[case::from_none_to_none(Some(json!({ "zone": "c" })), json!({ "zone": "b" }), true)]
fn scheduling_that_removes_the_last_proxy_is_rejected(
    #[case] old: Option<Value>,
    #[case] new: Value,
    #[case] allowed: bool,
) {
    let node = json!({ "metadata": { "name": "n", "labels": { "zone": "a" } } });
    let observed = Observed {
        live: old
            .map(|old| placed(&json!({ "nodeSelector": old })))
            .unwrap_or_default(),
        nodes: vec![serde_json::from_value(node).unwrap()],
        ..Observed::default()
    };
    let result = check_scheduling(&placed(&json!({ "nodeSelector": new })), &observed);
    assert_eq!(result.is_ok(), allowed);
    if let Err(invalid) = result {
        assert_eq!(invalid.reason(), "InvalidPlacement");
        assert!(
            invalid.to_string().contains("spec.proxy.nodeSelector"),
            "{invalid}"
        );
    }
}

#[rstest]
#[case::kubernetes(None, 2, 1)]
#[case::openshift(Some(false), 2, 4)]
#[case::openshift_on_one_node(Some(true), 1, 4)]
fn openshift_sets_defaults(
    #[case] single_replica: Option<bool>,
    #[case] replicas: i32,
    #[case] namespaces: usize,
) {
    let on = |spec: &Value| {
        let openshift = single_replica.map(|single_replica| OpenShift { single_replica });
        let observed = Observed {
            openshift,
            ..observed(spec, false)
        };
        match validate(&observed, &release()) {
            Ok(Intent::Install(config)) => (config.replicas, config.networks.global_namespaces.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(on(&json!({})), (replicas, namespaces));
    assert_eq!(
        on(&json!({ "controller": { "replicas": 3 }, "globalNamespaces": ["a", "b"] })),
        (3, 2)
    );
}

/// Service CIDRs of the cluster, of the configuration, and the effective ones.
#[rstest]
#[case::neither(ServiceRanges::Unknown, &[], ServiceRanges::Unknown)]
#[case::the_configuration_alone(ServiceRanges::Unknown, &["fd00:96::/112", "172.30.0.1/16"], given(&["172.30.0.0/16", "fd00:96::/112"]))]
#[case::openshift(given(&["172.30.0.0/16"]), &["10.96.0.0/12"], given(&["172.30.0.0/16"]))]
#[case::objects(ServiceRanges::Objects, &["10.96.0.0/12"], ServiceRanges::Objects)]
fn configured_service_cidrs_apply_where_the_cluster_publishes_none(
    #[case] found: ServiceRanges,
    #[case] named: &[&str],
    #[case] want: ServiceRanges,
) {
    let observed = Observed {
        service_ranges: found,
        ..observed(&json!({ "serviceCIDRs": named }), false)
    };
    match validate(&observed, &release()) {
        Ok(Intent::Install(config)) => assert_eq!(config.service_ranges, want),
        other => panic!("{other:?}"),
    }
}

fn given(ranges: &[&str]) -> ServiceRanges {
    ServiceRanges::Given(ranges.iter().map(|range| range.parse().unwrap()).collect())
}

/// Controller and proxy would exit at every start with an invalid value.
#[rstest]
#[case::no_cidr("cluster")]
#[case::every_address("0.0.0.0/0")]
fn invalid_cidr_is_reported_with_its_remedy(#[case] range: &str) {
    let observed = observed(&json!({ "serviceCIDRs": ["172.30.0.0/16", range] }), false);
    let invalid = validate(&observed, &release()).unwrap_err();
    let message = invalid.to_string();
    assert!(
        ["spec.serviceCIDRs", range, "172.30.0.0/16"]
            .iter()
            .all(|words| message.contains(words)),
        "{message}"
    );
    assert_eq!(invalid.reason(), "InvalidConfig");
}
