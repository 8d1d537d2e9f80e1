//! Snapshots of whole objects, and invariants of all of them.

use super::*;
use crate::apply::upgrade_order::proxy_may_follow;
use crate::kinds::{Scope, for_each_kind};
use crate::operands::{Kinds, SELECTOR};
use crate::service_ranges::ServiceRanges;
use crate::validate::{ReleaseImages, validate};
use api::MultusServiceConfig;
use api::config::LogLevel;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Service};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::fmt::Debug;

fn config() -> ValidatedConfig {
    validated(&json!({}))
}

/// The validated form of a specification.
fn validated(spec: &Value) -> ValidatedConfig {
    let images = ReleaseImages {
        controller: Some("registry.example/controller:v1".to_owned()),
        proxy: Some("registry.example/proxy:v1".to_owned()),
    };
    let config: MultusServiceConfig = serde_json::from_value(json!({
        "apiVersion": "multusservice.cni.cncf.io/v1alpha1", "kind": "MultusServiceConfig",
        "metadata": { "name": "cluster" }, "spec": spec,
    }))
    .unwrap();
    let observed = Observed {
        config,
        ..Observed::default()
    };
    match validate(&observed, &images) {
        Ok(Intent::Install(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn installed(config: &ValidatedConfig) -> Operands {
    let observed = Observed {
        version: VERSION.to_owned(),
        kinds: Kinds {
            admission_policies: true,
            quick_starts: true,
            yaml_samples: true,
            service_monitors: true,
            prometheus_rules: true,
        },
        ..Observed::default()
    };
    install(config, &observed, "far-away").operands
}

/// A removal step while these operands are `running`.
fn removed(removal: &Removal, running: &Operands) -> Desired {
    let observed = Observed {
        live: running.clone(),
        ..Observed::default()
    };
    remove(removal, &observed, "far-away", &ReleaseImages::default())
}

fn cleaning(running: &Operands) -> DaemonSet {
    let since = Timestamp::from_second(1_700_000_000).unwrap();
    let removal = Removal::CleanNodes {
        since,
        waiting: vec![],
    };
    removed(&removal, running).operands.daemon_sets.remove(0)
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
fn protection() {
    let Operands {
        network_policies,
        pod_disruption_budgets,
        ..
    } = installed(&config());
    insta::assert_yaml_snapshot!((network_policies, pod_disruption_budgets));
}

#[test]
fn services_of_metrics() {
    insta::assert_yaml_snapshot!(installed(&config()).services);
}

#[test]
fn a_service_of_metrics_selects_a_port_and_a_certificate_of_its_pods() {
    let operands = installed(&config());
    let pods = [
        operands
            .controller()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .template
            .clone(),
        operands.proxy().unwrap().spec.as_ref().unwrap().template.clone(),
    ];
    for template in pods {
        let labels = template.metadata.unwrap().labels.unwrap();
        let selects = |service: &&Service| {
            let selector = service.spec.as_ref().unwrap().selector.clone().unwrap();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let service = operands.services.iter().find(selects).unwrap();
        let pod = template.spec.unwrap();
        let port = &service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
        let container = &pod.containers[0];
        let ports = container.ports.as_ref().unwrap();
        let target = ports
            .iter()
            .find(|port| port.name.as_deref() == Some("metrics"))
            .unwrap();
        assert_eq!(target.container_port, port.port);
        let secret = &service.annotations()["service.beta.openshift.io/serving-cert-secret-name"];
        let volumes = pod.volumes.unwrap();
        let volume = volumes
            .iter()
            .find(|volume| volume.name == "metrics-tls")
            .unwrap();
        let source = volume.secret.as_ref().unwrap();
        assert_eq!(
            (source.secret_name.as_ref(), source.optional),
            (Some(secret), Some(true))
        );
        let mounts = container.volume_mounts.as_ref().unwrap();
        let mount = mounts.iter().find(|mount| mount.name == "metrics-tls").unwrap();
        let args = container.args.as_ref().unwrap();
        assert!(
            args.contains(&format!("--tls-cert-file={}/tls.crt", mount.mount_path)),
            "{args:?}"
        );
    }
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
fn the_proxy_as_a_cleanup() {
    insta::assert_yaml_snapshot!(cleaning(&installed(&config())));
}

#[test]
fn configuration_is_passed_in_arguments() {
    let config = validated(&json!({
        "logLevel": "Debug",
        "globalNamespaces": ["shared", "default"],
        "networkNamespaceIsolation": "Disabled",
        "proxy": {
            "backend": "IPTables", "containerRuntimeEndpoint": "unix:///var/run/k3s/k3s.sock",
            "hostNetworks": [{ "network": "web/macvlan2", "interface": "ens5" }, { "network": "web/macvlan1", "interface": "ens4.100" }],
            "legacyProxyNamespaces": ["multus", "kube-system"],
        },
    }));
    let [controller, proxy] = &templates(&installed(&config)).map(|template| args(template).join(" "));
    assert_eq!(
        controller,
        "--log-level=info,controller=debug,process=debug --tls-cert-file=/etc/multus-service/metrics-tls/tls.crt --tls-private-key-file=/etc/multus-service/metrics-tls/tls.key --network-namespace-isolation=false --global-namespaces=default,shared"
    );
    assert_eq!(
        proxy,
        "--log-level=info,proxy=debug,rules=debug,process=debug --backend=IPTables --tls-cert-file=/etc/multus-service/metrics-tls/tls.crt --tls-private-key-file=/etc/multus-service/metrics-tls/tls.key --network-namespace-isolation=false --global-namespaces=default,shared --host-network=web/macvlan1=ens4.100 --host-network=web/macvlan2=ens5 --legacy-proxy-namespaces=kube-system,multus --container-runtime-endpoint=/run/k3s/k3s.sock"
    );
}

/// Metrics ports of the DaemonSets, by argument and declaration, and that of the Service.
fn metrics_ports(operands: &Operands) -> Value {
    let proxies = operands.daemon_sets.iter().map(|daemon_set| {
        let template = &daemon_set.spec.as_ref().unwrap().template;
        let args = args(template);
        let argument = args.iter().find_map(|arg| arg.strip_prefix("--metrics-port="));
        let ports = pod(template).containers[0].ports.as_ref().unwrap();
        let declared: Vec<_> = ports
            .iter()
            .map(|port| (port.container_port, port.host_port))
            .collect();
        json!([argument, declared])
    });
    let service = operands
        .services
        .iter()
        .find(|service| service.name_any() == "multus-service-proxy-metrics")
        .unwrap();
    let ports = service.spec.as_ref().unwrap().ports.iter().flatten();
    json!([
        proxies.collect::<Value>(),
        ports.map(|port| port.port).collect::<Value>()
    ])
}

#[test]
fn the_port_of_metrics_is_that_of_the_configuration_in_daemon_set_and_service() {
    let omitted = metrics_ports(&installed(&config()));
    assert_eq!(omitted, json!([[[null, [[9124, 9124], [9125, 9125]]]], [9125]]));
    let config = validated(&json!({ "proxy": { "metricsPort": 9300 } }));
    let chosen = installed(&config);
    assert_eq!(
        metrics_ports(&chosen),
        json!([[["9300", [[9124, 9124], [9300, 9300]]]], [9300]])
    );
    let cleanup = daemon_set::for_labelled_nodes(chosen.proxy().unwrap(), None);
    let cleanups = Operands {
        daemon_sets: vec![cleanup],
        ..chosen.clone()
    };
    assert_eq!(metrics_ports(&cleanups), metrics_ports(&chosen));
}

#[test]
fn a_removal_keeps_the_port_of_metrics_of_the_running_proxy() {
    let running = installed(&validated(&json!({ "proxy": { "metricsPort": 9300 } })));
    let removal = Removal::CleanNodes {
        since: Timestamp::from_second(1_700_000_000).unwrap(),
        waiting: vec![],
    };
    let removing = removed(&removal, &running).operands;
    assert_eq!(metrics_ports(&removing), metrics_ports(&running));
}

/// Of the controller and of the proxy, with TLS. The proxy, on the host network, must resolve a Service. Without the field nothing changes.
#[test]
fn tracing_is_rendered_into_both_operands() {
    let tracing = json!({ "tracing": {
        "endpoint": "https://otel-collector.observability.svc:4317", "samplingRatePerMillion": 1000, "ca": { "name": "receivers" },
    } });
    let (plain, traced) = (installed(&config()), installed(&validated(&tracing)));
    let wanted = [
        "--tracing-endpoint=https://otel-collector.observability.svc:4317",
        "--tracing-sampling-rate-per-million=1000",
        "--tracing-ca-file=/etc/multus-service/tracing-ca/ca.crt",
    ];
    for (template, plain) in templates(&traced).into_iter().zip(templates(&plain)) {
        assert!(args(template).ends_with(&wanted), "{:?}", args(template));
        assert!(!args(plain).iter().any(|arg| arg.contains("tracing")));
        let volumes = pod(template).volumes.iter().flatten();
        let volume = volumes
            .last()
            .and_then(|volume| volume.config_map.as_ref())
            .unwrap();
        let item = &volume.items.as_ref().unwrap()[0];
        assert_eq!((volume.name.as_str(), volume.optional), ("receivers", Some(true)));
        assert_eq!((item.key.as_str(), item.path.as_str()), ("ca.crt", "ca.crt"));
        let mounts = pod(template).containers[0].volume_mounts.iter().flatten();
        assert_eq!(
            mounts.last().unwrap().mount_path,
            "/etc/multus-service/tracing-ca"
        );
    }
    let [controller, proxy] = templates(&traced).map(|template| pod(template).dns_policy.as_deref());
    assert_eq!((controller, proxy), (None, Some("ClusterFirstWithHostNet")));
    let [_, proxy] = templates(&plain).map(|template| pod(template).dns_policy.as_deref());
    assert_eq!(proxy, Some("Default"));
}

#[test]
fn tracing_without_tls_samples_all_and_mounts_nothing() {
    let tracing = json!({ "tracing": { "endpoint": "http://127.0.0.1:4317" } });
    let (plain, traced) = (installed(&config()), installed(&validated(&tracing)));
    for (template, plain) in templates(&traced).into_iter().zip(templates(&plain)) {
        let wanted = [
            "--tracing-endpoint=http://127.0.0.1:4317",
            "--tracing-sampling-rate-per-million=1000000",
        ];
        assert!(args(template).ends_with(&wanted), "{:?}", args(template));
        assert_eq!(pod(template).volumes, pod(plain).volumes);
    }
}

#[test]
fn memory_request_without_limit_removes_the_default_limit() {
    let limits = |resources: Value| {
        let config = validated(&json!({ "proxy": { "resources": resources } }));
        let [_, proxy] =
            templates(&installed(&config)).map(|template| pod(template).containers[0].resources.clone());
        serde_json::to_value(proxy.unwrap().limits).unwrap()
    };
    assert_eq!(limits(json!({})), json!({ "memory": "1Gi" }));
    assert_eq!(
        limits(json!({ "requests": { "cpu": 1 } })),
        json!({ "memory": "1Gi" })
    );
    assert_eq!(limits(json!({ "requests": { "memory": "2Gi" } })), Value::Null);
    let both = json!({ "requests": { "memory": "2Gi" }, "limits": { "memory": "4Gi" } });
    assert_eq!(limits(both), json!({ "memory": "4Gi" }));
}

#[test]
fn service_cidrs_that_operands_cannot_watch_are_passed_to_both() {
    let with = |service_ranges: ServiceRanges| {
        let config = ValidatedConfig {
            service_ranges,
            ..config()
        };
        templates(&installed(&config)).map(|template| {
            let args = args(template)
                .into_iter()
                .find(|arg| arg.starts_with("--service-cidrs"));
            args.map(str::to_owned)
        })
    };
    let ranges = ["fd02::/112", "172.30.0.0/16"].map(|range| range.parse().unwrap());
    let flag = "--service-cidrs=172.30.0.0/16,fd02::/112".to_owned();
    assert_eq!(
        with(ServiceRanges::Given(ranges.into())),
        [Some(flag.clone()), Some(flag)]
    );
    assert_eq!(with(ServiceRanges::Objects), [None, None]);
    assert_eq!(with(ServiceRanges::Unknown), [None, None]);
}

/// Every setting at once, as snapshots of the fields it changes.
#[test]
fn every_setting_is_applied_to_the_pods() {
    let pods = json!({
        "nodeSelector": { "zone": "a" },
        "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} },
        "priorityClassName": "mine",
        "resources": { "requests": { "cpu": 1 }, "limits": { "memory": "1Gi" } },
    });
    let mut controller = pods.clone();
    controller["replicas"] = json!(3);
    let mut proxy = pods;
    proxy["containerRuntimeEndpoint"] = json!("/run/k3s/k3s.sock");
    proxy["updateStrategy"] = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } });
    let operands = installed(&validated(&json!({
        "imagePullPolicy": "Always", "imagePullSecrets": [{ "name": "registry" }], "controller": controller, "proxy": proxy,
    })));
    assert_eq!(
        operands.controller().unwrap().spec.as_ref().unwrap().replicas,
        Some(3)
    );
    for template in templates(&operands) {
        let pod = serde_json::to_value(pod(template)).unwrap();
        assert_eq!(
            pod["nodeSelector"],
            json!({ "kubernetes.io/os": "linux", "zone": "a" })
        );
        assert_eq!(
            pod["tolerations"],
            json!([{ "key": "dedicated", "operator": "Exists" }])
        );
        assert_eq!(pod["affinity"], json!({ "nodeAffinity": {} }));
        assert_eq!(pod["priorityClassName"], "mine");
        assert_eq!(pod["imagePullSecrets"], json!([{ "name": "registry" }]));
        let container = &pod["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert!(
            container["resources"]["requests"]["memory"].is_string(),
            "what is not set stays"
        );
        assert_eq!(container["resources"]["limits"], json!({ "memory": "1Gi" }));
    }
    let proxy = serde_json::to_value(operands.proxy()).unwrap();
    assert_eq!(
        proxy["spec"]["updateStrategy"],
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } })
    );
    let pod = &proxy["spec"]["template"]["spec"];
    let mounted = |list: &Value, name: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|item| item["name"] == name)
            .cloned()
    };
    assert_eq!(
        mounted(&pod["containers"][0]["volumeMounts"], "runtime"),
        Some(
            json!({ "name": "runtime", "mountPath": "/run/k3s", "readOnly": true, "mountPropagation": "HostToContainer" })
        )
    );
    assert_eq!(
        mounted(&pod["volumes"], "runtime"),
        Some(json!({ "name": "runtime", "hostPath": { "path": "/run/k3s", "type": "DirectoryOrCreate" } }))
    );
}

#[test]
fn cleanup_keeps_the_configured_fields() {
    let config = validated(&json!({ "proxy": {
        "nodeSelector": { "zone": "a" }, "containerRuntimeEndpoint": "/run/k3s/k3s.sock", "updateStrategy": { "type": "OnDelete" },
    }}));
    let running = installed(&config);
    assert_eq!(
        running
            .proxy()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .update_strategy
            .as_ref()
            .unwrap()
            .type_
            .as_deref(),
        Some("OnDelete")
    );
    let cleanup = cleaning(&running).spec.unwrap();
    assert_eq!(
        args(&cleanup.template),
        [
            "cleanup",
            "--wait",
            "--container-runtime-endpoint=/run/k3s/k3s.sock"
        ]
    );
    assert_eq!(
        cleanup.update_strategy.unwrap().type_.as_deref(),
        Some("RollingUpdate")
    );
    let running = &running.proxy().unwrap().spec.as_ref().unwrap().template;
    assert_eq!(pod(&cleanup.template).node_selector, pod(running).node_selector);
    assert_eq!(pod(&cleanup.template).volumes, pod(running).volumes);
}

#[test]
fn socket_in_a_mounted_directory_needs_no_further_mount() {
    let usual = installed(&validated(
        &json!({ "proxy": { "containerRuntimeEndpoint": "/run/crio/crio.sock" } }),
    ));
    assert_eq!(
        pod(templates(&usual)[1]).volumes,
        pod(templates(&installed(&config()))[1]).volumes
    );
}

#[test]
fn network_policy_can_be_disabled() {
    assert_eq!(installed(&config()).network_policies.len(), 1);
    let declined = validated(&json!({ "networkPolicy": { "mode": "Disabled" } }));
    assert_eq!(installed(&declined).network_policies, []);
}

/// A policy without a binding confines no account; a policy that names accounts of another namespace confines the wrong ones.
#[test]
fn admission_policies_are_bound_and_match_accounts_of_this_namespace() {
    let operands = installed(&config());
    let bound: Vec<_> = operands
        .admission_policy_bindings
        .iter()
        .map(|binding| binding.spec.as_ref().unwrap().policy_name.clone().unwrap())
        .collect();
    let policies = operands.admission_policies.iter();
    assert_eq!(bound, policies.map(ResourceExt::name_any).collect::<Vec<_>>());
    let declined = installed(&validated(&json!({ "serviceValidation": "Off" })));
    assert_eq!(declined.admission_policies.len(), 6);
    for policy in &declined.admission_policies {
        let spec = serde_json::to_value(&policy.spec).unwrap();
        let conditions = spec["matchConditions"].to_string();
        assert!(
            conditions.contains("system:serviceaccount:far-away:multus-service-"),
            "{spec:#}"
        );
        assert!(
            !spec.to_string().contains("system:serviceaccount:multus-service:"),
            "{spec:#}"
        );
        assert_eq!(spec["failurePolicy"], "Fail");
    }
}

/// Actions of the bindings that do not confine accounts, by name.
fn actions(spec: &Value) -> Vec<(String, Vec<String>)> {
    let operands = installed(&validated(spec));
    let warning = |name: &String| {
        ["multus-service-pod", "multus-service-service"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let bindings = operands.admission_policy_bindings.into_iter();
    bindings
        .map(|binding| {
            (
                binding.name_any(),
                binding.spec.unwrap().validation_actions.unwrap(),
            )
        })
        .filter(|(name, _)| warning(name))
        .collect()
}

#[test]
fn services_are_validated_as_configured() {
    let all = |rejections: &str| {
        [
            ("multus-service-pod-networks", "Warn"),
            ("multus-service-service-warnings", "Warn"),
            ("multus-service-services", rejections),
        ]
        .map(|(name, action)| (name.to_owned(), vec![action.to_owned()]))
    };
    assert_eq!(actions(&json!({})), all("Warn"));
    assert_eq!(actions(&json!({ "serviceValidation": "Warn" })), all("Warn"));
    assert_eq!(actions(&json!({ "serviceValidation": "Deny" })), all("Deny"));
    assert_eq!(actions(&json!({ "serviceValidation": "Off" })), []);
}

/// A bug in an expression must keep no Service and no pod out.
#[test]
fn validation_of_services_has_the_networks_of_the_configuration_and_fails_open() {
    let spec = |spec: &Value| {
        let policies = installed(&validated(spec)).admission_policies;
        let open = policies
            .iter()
            .map(|policy| serde_json::to_value(&policy.spec).unwrap());
        let open: Vec<Value> = open.filter(|spec| spec["failurePolicy"] == "Ignore").collect();
        assert_eq!(open.len(), 3);
        let variables = open
            .iter()
            .flat_map(|spec| spec["variables"].as_array().cloned().unwrap());
        let variables: Vec<Value> = variables.collect();
        ["isIsolated", "globalNamespaces"].map(|name| {
            let found = variables.iter().find(|variable| variable["name"] == name);
            found.unwrap()["expression"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(spec(&json!({})), ["true", "['default']"]);
    let open = json!({ "networkNamespaceIsolation": "Disabled", "globalNamespaces": [] });
    assert_eq!(spec(&open), ["false", "[]"]);
    let shared = json!({ "globalNamespaces": ["shared", "default"] });
    assert_eq!(spec(&shared), ["true", "['default', 'shared']"]);
}

/// Before Kubernetes 1.30, or where the kind is disabled, the other operands are installed.
#[test]
fn admission_policies_are_built_only_where_the_api_server_serves_the_kind() {
    let lacking = install(&config(), &Observed::default(), "far-away").operands;
    assert_eq!(
        (lacking.admission_policies, lacking.admission_policy_bindings),
        (vec![], vec![])
    );
    assert!(!lacking.service_accounts.is_empty());
}

#[test]
fn console_objects_are_built_only_where_their_kinds_are_served() {
    let of = |quick_starts, yaml_samples| {
        let observed = Observed {
            kinds: Kinds {
                quick_starts,
                yaml_samples,
                ..Kinds::default()
            },
            ..Observed::default()
        };
        let operands = install(&config(), &observed, "far-away").operands;
        (
            operands.console_quick_starts.len(),
            operands.console_yaml_samples.len(),
        )
    };
    assert_eq!(
        [of(false, false), of(true, false), of(false, true)],
        [(0, 0), (1, 0), (0, 2)]
    );
}

/// Kubernetes accepts the YAML that the console offers to copy.
#[test]
fn console_samples_are_yaml_objects() {
    let operands = installed(&config());
    let samples = operands.console_yaml_samples.iter();
    let mut texts: Vec<_> = samples
        .map(|sample| sample.spec.fields["yaml"].as_str().unwrap().to_owned())
        .collect();
    let tasks = operands.console_quick_starts[0].spec.fields["tasks"]
        .as_array()
        .unwrap();
    texts.extend(
        tasks
            .iter()
            .flat_map(|task| handed_over(task["description"].as_str().unwrap())),
    );
    assert_eq!(texts.len(), 3, "{texts:#?}");
    for yaml in texts {
        let object: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert!(
            object["apiVersion"] == "v1" && object["kind"] == "Service",
            "{yaml}"
        );
    }
}

/// The documents that the shell commands of a Markdown text pass to `oc apply -f -`.
fn handed_over(markdown: &str) -> Vec<String> {
    let heredocs = markdown.split("<<EOF\n").skip(1);
    heredocs
        .map(|rest| rest.split("EOF\n").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_log_level_has_a_distinct_filter() {
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

/// Selectors are immutable in a cluster, so these two must never change here.
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
fn cleanup_differs_from_the_running_proxy_only_in_its_arguments() {
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
fn cleanup_uses_the_running_image() {
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
fn controller_is_unchanged_during_node_cleanup() {
    let removal = Removal::CleanNodes {
        since: Timestamp::UNIX_EPOCH,
        waiting: vec![],
    };
    let desired = removed(&removal, &installed(&config()));
    assert_eq!(
        (desired.prune, desired.finalizer, desired.operands.controller()),
        (false, true, None)
    );
}

/// A node outside the proxy's scheduling that may hold rules.
fn unscheduled_node() -> Observed {
    let node = json!({ "metadata": { "name": "a", "labels": { node_labels::LABEL: node_labels::CLEANUP_PENDING } } });
    Observed {
        nodes: vec![serde_json::from_value(node).unwrap()],
        ..Observed::default()
    }
}

#[test]
fn the_cleanup_of_unscheduled_nodes() {
    let config = validated(&json!({ "proxy": {
        "nodeSelector": { "zone": "a" }, "containerRuntimeEndpoint": "/run/k3s/k3s.sock", "updateStrategy": { "type": "OnDelete" },
    }}));
    let operands = install(&config, &unscheduled_node(), "far-away").operands;
    insta::assert_yaml_snapshot!(operands.cleanup());
    assert_eq!(
        installed(&config).cleanup(),
        None,
        "only while there is such a node"
    );
}

#[test]
fn removal_without_a_proxy_cleans_up_labelled_nodes_with_the_known_image() {
    let removal = Removal::CleanNodes {
        since: Timestamp::UNIX_EPOCH,
        waiting: vec![],
    };
    let images = ReleaseImages {
        proxy: Some("release/proxy:v2".to_owned()),
        ..ReleaseImages::default()
    };
    let operands = remove(&removal, &unscheduled_node(), "far-away", &images).operands;
    let cleanup = operands.cleanup().unwrap();
    assert_eq!(
        pod(&cleanup.spec.as_ref().unwrap().template).containers[0]
            .image
            .as_deref(),
        Some("release/proxy:v2")
    );
    assert!(cleanup.annotations().contains_key(CLEANUP_ANNOTATION));
    assert_eq!(operands.proxy(), None);
}

#[test]
fn proxy_is_updated_after_the_controller_rollout() {
    let with = |status: Value| {
        let mut operands = installed(&config());
        operands.deployments[0].status = serde_json::from_value(status).unwrap();
        proxy_may_follow(&operands)
    };
    let arrived =
        |reason| json!({ "conditions": [{ "type": "Progressing", "status": "True", "reason": reason }] });
    assert!(!with(Value::Null));
    assert!(!with(arrived("ReplicaSetUpdated")));
    assert!(with(arrived("NewReplicaSetAvailable")));
}

#[test]
fn finalizer_is_removed_when_no_operand_is_left() {
    let done = Removal::Delete { skipped: vec![] };
    assert!(removed(&done, &installed(&config())).finalizer);
    assert!(!removed(&done, &Operands::default()).finalizer);
}

/// Pruning uses the labels: an object without them would never be removed.
#[test]
fn every_operand_has_the_selector_labels_and_the_namespace() {
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
    let operands = installed(&config());
    let all = &operands;
    macro_rules! check_kinds {
        ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {{
            let Operands { $($field),* } = all;
            $(check($field, <<$kind as Resource>::Scope as Scope<$kind>>::namespace("far-away"));)*
        }};
    }
    for_each_kind!(check_kinds);
    assert_eq!(
        operands.service_accounts[0].namespace().as_deref(),
        Some("far-away")
    );
    assert_eq!(operands.cluster_role_bindings[0].namespace(), None);
}

/// OpenShift's conventions for operands (openshift/enhancements, CONVENTIONS.md).
#[test]
fn workloads_set_requests_without_cpu_limits_and_a_termination_message_policy() {
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
        // Our exception: pods fill lists that the proxy reads.
        let of_memory = resources.limits.iter().flat_map(|limits| limits.keys());
        assert!(of_memory.eq((container.name == "proxy").then_some("memory").iter()));
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
    let bytes = || serde_json::to_vec(&installed(&config())).unwrap();
    let first = bytes();
    for _ in 0..100 {
        assert_eq!(bytes(), first);
    }
}
