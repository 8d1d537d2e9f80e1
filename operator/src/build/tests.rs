//! Whole objects as snapshots, and what must hold for all of them.

use super::*;
use crate::operands::SELECTOR;
use api::config::{Backend, LogLevel};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use std::fmt::Debug;

fn config() -> ValidatedConfig {
    ValidatedConfig {
        controller_image: "registry.example/controller:v1".to_owned(),
        proxy_image: "registry.example/proxy:v1".to_owned(),
        log_level: LogLevel::Normal,
        backend: Backend::Auto,
    }
}

fn installed(config: &ValidatedConfig) -> Operands {
    install(config, "far-away").operands
}

fn cleaning(running: &Operands) -> DaemonSet {
    let since = Timestamp::from_second(1_700_000_000).unwrap();
    let removal = Removal::CleanNodes {
        since,
        waiting: vec![],
    };
    remove(&removal, running, "far-away")
        .operands
        .daemon_sets
        .remove(0)
}

fn pod(template: &PodTemplateSpec) -> &PodSpec {
    template.spec.as_ref().unwrap()
}

fn args(template: &PodTemplateSpec) -> Vec<&str> {
    pod(template).containers[0]
        .args
        .iter()
        .flatten()
        .map(String::as_str)
        .collect()
}

fn templates(operands: &Operands) -> [&PodTemplateSpec; 2] {
    [
        &operands.controller().unwrap().spec.as_ref().unwrap().template,
        &operands.proxy().unwrap().spec.as_ref().unwrap().template,
    ]
}

#[test]
fn identities() {
    let Operands {
        service_accounts,
        cluster_role_bindings,
        role_bindings,
        ..
    } = installed(&config());
    insta::assert_yaml_snapshot!((service_accounts, cluster_role_bindings, role_bindings));
}

#[test]
fn the_controller() {
    insta::assert_yaml_snapshot!(installed(&config()).controller());
}

#[test]
fn the_proxy() {
    insta::assert_yaml_snapshot!(installed(&config()).proxy());
}

#[test]
fn the_proxy_as_a_clean_up() {
    insta::assert_yaml_snapshot!(cleaning(&installed(&config())));
}

#[test]
fn the_configuration_reaches_the_arguments() {
    let [controller, proxy] = &templates(&installed(&ValidatedConfig {
        log_level: LogLevel::Debug,
        backend: Backend::IpTables,
        ..config()
    }))
    .map(|template| args(template).join(" "));
    assert_eq!(controller, "--log-level=info,controller=debug,process=debug");
    assert_eq!(
        proxy,
        "--log-level=info,proxy=debug,rules=debug,process=debug --backend=IPTables"
    );
}

#[test]
fn every_log_level_is_a_filter_of_its_own() {
    let levels = [
        LogLevel::Normal,
        LogLevel::Debug,
        LogLevel::Trace,
        LogLevel::TraceAll,
    ];
    let filters = levels.map(|level| arguments::log_level(level, &["proxy"]));
    assert_eq!(
        filters
            .each_ref()
            .map(|filter| filter.trim_start_matches("--log-level=")),
        ["info", "info,proxy=debug", "info,proxy=trace", "trace"]
    );
}

/// A selector cannot be changed in a cluster, so these two can never change here.
#[test]
fn selectors_are_frozen() {
    let operands = installed(&config());
    let controller = operands.controller().unwrap().spec.as_ref().unwrap();
    let proxy = operands.proxy().unwrap().spec.as_ref().unwrap();
    for (selector, template, name) in [
        (
            &controller.selector,
            &controller.template,
            "multus-service-controller",
        ),
        (&proxy.selector, &proxy.template, "multus-service-proxy"),
    ] {
        let labels = selector.match_labels.as_ref().unwrap();
        assert_eq!(
            labels.iter().collect::<Vec<_>>(),
            [(&"app.kubernetes.io/name".to_owned(), &name.to_owned())]
        );
        assert_eq!(selector.match_expressions, None);
        assert_eq!(
            template.metadata.as_ref().unwrap().labels.as_ref().unwrap()["app.kubernetes.io/name"],
            name
        );
    }
}

#[test]
fn a_clean_up_keeps_everything_of_the_running_proxy_but_how_it_is_called() {
    let running = installed(&config());
    let mut cleanup = cleaning(&running);
    let (cleanup_spec, running_spec) = (
        cleanup.spec.as_mut().unwrap(),
        running.proxy().unwrap().spec.clone().unwrap(),
    );
    assert_eq!(args(&cleanup_spec.template), ["cleanup", "--wait"]);
    pod_mut(cleanup_spec).containers[0]
        .args
        .clone_from(&pod(&running_spec.template).containers[0].args);
    assert_eq!(pod(&cleanup_spec.template), pod(&running_spec.template));
    assert_eq!(cleanup_spec.selector, running_spec.selector);
}

fn pod_mut(spec: &mut k8s_openapi::api::apps::v1::DaemonSetSpec) -> &mut PodSpec {
    spec.template.spec.as_mut().unwrap()
}

#[test]
fn a_clean_up_runs_the_image_that_is_running() {
    let old = ValidatedConfig {
        proxy_image: "registry.example/proxy:v0".to_owned(),
        ..config()
    };
    let cleanup = cleaning(&installed(&old));
    assert_eq!(
        pod(&cleanup.spec.unwrap().template).containers[0]
            .image
            .as_deref(),
        Some("registry.example/proxy:v0")
    );
}

#[test]
fn the_controller_is_not_touched_while_nodes_are_being_cleaned() {
    let removal = Removal::CleanNodes {
        since: Timestamp::UNIX_EPOCH,
        waiting: vec![],
    };
    let desired = remove(&removal, &installed(&config()), "far-away");
    assert_eq!(
        (desired.prune, desired.finalizer, desired.operands.controller()),
        (false, true, None)
    );
}

#[test]
fn the_finalizer_goes_when_nothing_is_left() {
    let done = Removal::Delete { skipped: vec![] };
    assert!(remove(&done, &installed(&config()), "far-away").finalizer);
    assert!(!remove(&done, &Operands::default(), "far-away").finalizer);
}

/// What is selected is pruned: an object without the labels would never be removed.
#[test]
fn everything_carries_the_labels_by_which_it_is_found_and_is_in_the_namespace() {
    fn check<K: Resource<DynamicType = ()> + Debug>(objects: &[K], namespace: Option<&str>) {
        assert!(!objects.is_empty());
        for object in objects {
            for (key, value) in SELECTOR.split(',').map(|pair| pair.split_once('=').unwrap()) {
                assert_eq!(
                    object.labels().get(key).map(String::as_str),
                    Some(value),
                    "{object:?}"
                );
            }
            assert_eq!(object.namespace().as_deref(), namespace);
            assert_eq!(object.owner_references(), []);
        }
    }
    let Operands {
        service_accounts,
        cluster_role_bindings,
        role_bindings,
        deployments,
        daemon_sets,
    } = installed(&config());
    check(&service_accounts, Some("far-away"));
    check(&cluster_role_bindings, None);
    check(&role_bindings, Some("far-away"));
    check(&deployments, Some("far-away"));
    check(&daemon_sets, Some("far-away"));
}

/// OpenShift's conventions for operands (openshift/enhancements, CONVENTIONS.md).
#[test]
fn workloads_request_without_limits_and_explain_their_end() {
    for template in templates(&installed(&config())) {
        let pod = pod(template);
        assert!(
            pod.priority_class_name
                .as_deref()
                .is_some_and(|class| class.starts_with("system-"))
        );
        let [container] = pod.containers.as_slice() else {
            panic!("one container each")
        };
        let resources = container.resources.as_ref().unwrap();
        assert_eq!(
            resources.requests.as_ref().unwrap().keys().collect::<Vec<_>>(),
            ["cpu", "memory"]
        );
        assert_eq!(resources.limits, None);
        assert_eq!(
            container.termination_message_policy.as_deref(),
            Some("FallbackToLogsOnError")
        );
        assert!(container.liveness_probe.is_some() && container.readiness_probe.is_some());
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(
            security.capabilities.as_ref().unwrap().drop,
            Some(vec!["ALL".to_owned()])
        );
        assert_eq!(security.privileged, None);
    }
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let bytes = || serde_json::to_vec(&installed(&config()).proxy()).unwrap();
    assert_eq!(bytes(), bytes());
}
