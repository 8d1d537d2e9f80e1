//! The CRD on a real API server: a valid and an invalid value for every rule and field.

use anyhow::Result;
use api::config::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::runtime::{conditions, wait::Condition as _};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::apiserver::Apiserver;
use testbed::wait;

const VERSION: &str = "multusservice.cni.cncf.io/v1alpha1";

async fn configs() -> Result<Api<DynamicObject>> {
    let client = Apiserver::shared().await?.client().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "multusserviceconfigs.multusservice.cni.cncf.io";
    let params = PatchParams::apply("test").force();
    crds.patch(name, &params, &Patch::Apply(serde_json::to_value(crd())?))
        .await?;
    wait::eventually(Duration::from_secs(20), "the CRD to be established", async || {
        let crd = crds.get_opt(name).await?;
        Ok(conditions::is_crd_established()
            .matches_object(crd.as_ref())
            .then_some(()))
    })
    .await?;
    Ok(Api::all_with(
        client,
        &ApiResource::erase::<api::MultusServiceConfig>(&()),
    ))
}

/// The API server's answer to a dry run of this object.
async fn dry_run(configs: &Api<DynamicObject>, name: &str, spec: Value) -> Result<Result<Value, String>> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": VERSION, "kind": "MultusServiceConfig", "metadata": { "name": name }, "spec": spec,
    }))?;
    // Strict field validation, as kubectl requests it.
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("test").dry_run()
    };
    match configs.patch(name, &params, &Patch::Apply(&object)).await {
        Ok(accepted) => Ok(Ok(accepted.data["spec"].clone())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn good_values_are_accepted() -> Result<()> {
    let configs = configs().await?;
    for spec in [
        json!({}),
        json!({ "managementState": "Managed" }),
        json!({ "managementState": "Unmanaged" }),
        json!({ "managementState": "Removed" }),
        json!({ "logLevel": "Normal" }),
        json!({ "logLevel": "Debug" }),
        json!({ "logLevel": "Trace" }),
        json!({ "logLevel": "TraceAll" }),
        json!({ "proxy": {} }),
        json!({ "proxy": { "backend": "Auto" } }),
        json!({ "proxy": { "backend": "IPTables" } }),
        json!({ "proxy": { "image": "a" } }),
        json!({ "proxy": { "image": "quay.io:443/multus-service/proxy:v0.1.0" } }),
        json!({ "controller": { "image": format!("quay.io/controller@sha256:{}", "0".repeat(64)) } }),
        json!({ "controller": { "image": "a".repeat(512) } }),
        json!({ "operatorLogLevel": "Debug" }),
        json!({ "imagePullPolicy": "Always", "imagePullSecrets": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "globalNamespaces": [], "networkNamespaceIsolation": "Enabled" }),
        json!({ "globalNamespaces": ["default", "shared-1"], "networkNamespaceIsolation": "Disabled" }),
        json!({ "serviceValidation": "Warn" }),
        json!({ "serviceValidation": "Deny" }),
        json!({ "serviceValidation": "Off" }),
        json!({ "serviceCIDRs": [] }),
        json!({ "serviceCIDRs": ["172.30.0.0/16", "fd00:96::/112", "10.96.0.1/12"] }),
        json!({ "networkPolicy": { "mode": "Enabled" } }),
        json!({ "networkPolicy": { "mode": "Disabled" } }),
        json!({ "monitoring": { "managementState": "Managed", "labels": { "release": "prometheus" } } }),
        json!({ "monitoring": { "managementState": "Removed" } }),
        json!({ "tracing": { "endpoint": "http://127.0.0.1:4317" } }),
        json!({ "tracing": { "endpoint": "http://[fd00::1]:4317", "samplingRatePerMillion": 0 } }),
        // A null is the same as an absent value.
        json!({ "tracing": { "endpoint": "http://collector.observability.svc:4317", "samplingRatePerMillion": 1_000_000, "ca": null } }),
        json!({ "tracing": { "endpoint": "https://collector.observability.svc:4317", "ca": { "name": "receivers" } } }),
        json!({ "tracing": { "endpoint": "https://10.0.0.1:4317", "ca": { "name": "openshift-service-ca.crt", "key": "service-ca.crt" } } }),
        json!({ "controller": { "replicas": 1 } }),
        json!({ "controller": { "replicas": 5, "priorityClassName": "system-cluster-critical" } }),
        json!({ "proxy": { "nodeSelector": { "example.com/zone": "a", "empty": "" } } }),
        json!({ "proxy": { "tolerations": [] } }),
        json!({ "proxy": { "tolerations": [{ "operator": "Exists" }] } }),
        json!({ "proxy": { "tolerations": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] } }),
        json!({ "proxy": { "tolerations": [{ "key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }] } }),
        json!({ "proxy": { "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] }] } } } } }),
        json!({ "proxy": { "resources": { "requests": { "cpu": 1, "memory": "32Mi" }, "limits": { "cpu": "1.5" } } } }),
        json!({ "proxy": { "resources": { "requests": { "cpu": "250m", "memory": "1e6" } } } }),
        json!({ "proxy": { "containerRuntimeEndpoint": "/run/crio/crio.sock" } }),
        json!({ "proxy": { "containerRuntimeEndpoint": "unix:///var/run/crio/crio.sock" } }),
        json!({ "proxy": { "metricsPort": 1024 } }),
        json!({ "proxy": { "metricsPort": 9125 } }),
        json!({ "proxy": { "metricsPort": 65535 } }),
        json!({ "proxy": { "updateStrategy": { "type": "OnDelete" } } }),
        json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate" } } }),
        json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } } } }),
        json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2_147_483_647 } } } }),
        json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } } } }),
    ] {
        let accepted = dry_run(&configs, "cluster", spec.clone()).await?;
        assert!(accepted.is_ok(), "{spec}: {accepted:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn bad_values_are_rejected_by_name() -> Result<()> {
    let configs = configs().await?;
    for (name, spec, words) in [
        ("other", json!({}), vec!["singleton", "'cluster'"]),
        (
            "cluster",
            json!({ "serviceValidation": "Reject" }),
            vec!["spec.serviceValidation", "Deny"],
        ),
        (
            "cluster",
            json!({ "tracing": {} }),
            vec!["spec.tracing.endpoint", "Required"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "127.0.0.1:4317" } }),
            vec!["spec.tracing.endpoint", "https?"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "http://127.0.0.1:4318/v1/traces" } }),
            vec!["spec.tracing.endpoint", "https?"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "http://127.0.0.1:4317", "samplingRatePerMillion": 1_000_001 } }),
            vec!["spec.tracing.samplingRatePerMillion", "1000000"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "http://127.0.0.1:4317", "samplingRatePerMillion": -1 } }),
            vec!["spec.tracing.samplingRatePerMillion", "0"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "https://127.0.0.1:4317" } }),
            vec!["spec.tracing", "https endpoint needs ca"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "https://127.0.0.1:4317", "ca": null } }),
            vec!["spec.tracing", "https endpoint needs ca"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "http://127.0.0.1:4317", "ca": { "name": "receivers" } } }),
            vec!["spec.tracing", "only for an https endpoint"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "https://127.0.0.1:4317", "ca": { "name": "" } } }),
            vec!["spec.tracing.ca.name"],
        ),
        (
            "cluster",
            json!({ "tracing": { "endpoint": "https://127.0.0.1:4317", "ca": { "name": "receivers", "key": "../ca" } } }),
            vec!["spec.tracing.ca.key"],
        ),
        (
            "cluster",
            json!({ "managementState": "managed" }),
            vec!["spec.managementState", "Unmanaged"],
        ),
        (
            "cluster",
            json!({ "logLevel": "Loud" }),
            vec!["spec.logLevel", "TraceAll"],
        ),
        ("cluster", json!({ "logLevel": 3 }), vec!["spec.logLevel"]),
        (
            "cluster",
            json!({ "serviceCIDRs": ["172.30.0.0"] }),
            vec!["spec.serviceCIDRs[0]", "ranges such as 172.30.0.0/16"],
        ),
        (
            "cluster",
            json!({ "serviceCIDRs": ["0.0.0.0/0"] }),
            vec!["spec.serviceCIDRs[0]", "ranges such as 172.30.0.0/16"],
        ),
        (
            "cluster",
            json!({ "serviceCIDRs": ["fd00:96::/112", "::/0"] }),
            vec!["spec.serviceCIDRs[1]", "ranges such as 172.30.0.0/16"],
        ),
        (
            "cluster",
            json!({ "serviceCIDRs": ["999.0.0.0/8"] }),
            vec!["spec.serviceCIDRs[0]", "ranges such as 172.30.0.0/16"],
        ),
        (
            "cluster",
            json!({ "serviceCIDRs": ["fd00:::/112"] }),
            vec!["spec.serviceCIDRs[0]", "ranges such as 172.30.0.0/16"],
        ),
        (
            "cluster",
            json!({ "serviceCIDRs": ["172.30.0.0/16", "172.30.0.0/16"] }),
            vec!["spec.serviceCIDRs", "duplicate"],
        ),
        (
            "cluster",
            json!({ "proxy": { "backend": "iptables" } }),
            vec!["spec.proxy.backend", "IPTables"],
        ),
        (
            "cluster",
            json!({ "proxy": { "image": "" } }),
            vec!["spec.proxy.image"],
        ),
        (
            "cluster",
            json!({ "proxy": { "image": "a b" } }),
            vec!["spec.proxy.image"],
        ),
        (
            "cluster",
            json!({ "proxy": { "image": "-x" } }),
            vec!["spec.proxy.image"],
        ),
        (
            "cluster",
            json!({ "controller": { "image": "$(id)" } }),
            vec!["spec.controller.image"],
        ),
        (
            "cluster",
            json!({ "controller": { "image": "a".repeat(513) } }),
            vec!["spec.controller.image", "512"],
        ),
        (
            "cluster",
            json!({ "proxy": { "bakend": "Auto" } }),
            vec!["bakend"],
        ),
        ("cluster", json!({ "replicas": 3 }), vec!["replicas"]),
        (
            "cluster",
            json!({ "operatorLogLevel": "Loud" }),
            vec!["spec.operatorLogLevel", "TraceAll"],
        ),
        (
            "cluster",
            json!({ "imagePullPolicy": "Sometimes" }),
            vec!["spec.imagePullPolicy", "IfNotPresent"],
        ),
        (
            "cluster",
            json!({ "imagePullSecrets": [{ "name": "" }] }),
            vec!["spec.imagePullSecrets[0].name"],
        ),
        (
            "cluster",
            json!({ "imagePullSecrets": [{ "name": "a" }, { "name": "a" }] }),
            vec!["imagePullSecrets", "name"],
        ),
        (
            "cluster",
            json!({ "imagePullSecrets": (0..11).map(|n| json!({ "name": n.to_string() })).collect::<Vec<_>>() }),
            vec!["imagePullSecrets", "10"],
        ),
        (
            "cluster",
            json!({ "globalNamespaces": ["A"] }),
            vec!["spec.globalNamespaces[0]"],
        ),
        (
            "cluster",
            json!({ "globalNamespaces": ["a", "a"] }),
            vec!["globalNamespaces", "a"],
        ),
        (
            "cluster",
            json!({ "networkNamespaceIsolation": true }),
            vec!["spec.networkNamespaceIsolation"],
        ),
        (
            "cluster",
            json!({ "networkPolicy": { "mode": "On" } }),
            vec!["spec.networkPolicy.mode", "Enabled"],
        ),
        (
            "cluster",
            json!({ "monitoring": { "managementState": "Unmanaged" } }),
            vec!["spec.monitoring.managementState", "Removed"],
        ),
        (
            "cluster",
            json!({ "monitoring": { "labels": { "release": "no label value" } } }),
            vec!["spec.monitoring.labels.release"],
        ),
        (
            "cluster",
            json!({ "controller": { "replicas": 0 } }),
            vec!["spec.controller.replicas", "1"],
        ),
        (
            "cluster",
            json!({ "controller": { "replicas": 6 } }),
            vec!["spec.controller.replicas", "5"],
        ),
        (
            "cluster",
            json!({ "controller": { "priorityClassName": "A" } }),
            vec!["spec.controller.priorityClassName"],
        ),
        (
            "cluster",
            json!({ "controller": { "backend": "Auto" } }),
            vec!["backend"],
        ),
        ("cluster", json!({ "proxy": { "replicas": 2 } }), vec!["replicas"]),
        (
            "cluster",
            json!({ "proxy": { "nodeSelector": { "a": "-" } } }),
            vec!["spec.proxy.nodeSelector.a"],
        ),
        (
            "cluster",
            json!({ "proxy": { "tolerations": [{ "operator": "Exists", "value": "x" }] } }),
            vec!["spec.proxy.tolerations[0]", "has no value"],
        ),
        (
            "cluster",
            json!({ "proxy": { "tolerations": [{ "effect": "NoSchedule" }] } }),
            vec!["spec.proxy.tolerations[0]", "needs operator Exists"],
        ),
        (
            "cluster",
            json!({ "proxy": { "tolerations": [{ "key": "a", "effect": "NoSchedule", "tolerationSeconds": 1 }] } }),
            vec!["spec.proxy.tolerations[0]", "needs effect NoExecute"],
        ),
        (
            "cluster",
            json!({ "proxy": { "tolerations": [{ "key": "a", "operator": "Like" }] } }),
            vec!["spec.proxy.tolerations[0].operator", "Equal"],
        ),
        (
            "cluster",
            json!({ "proxy": { "tolerations": [{ "key": "a", "effect": "Never" }] } }),
            vec!["spec.proxy.tolerations[0].effect", "NoExecute"],
        ),
        (
            "cluster",
            json!({ "proxy": { "resources": { "requests": { "cpu": "much" } } } }),
            vec!["spec.proxy.resources.requests.cpu"],
        ),
        (
            "cluster",
            json!({ "proxy": { "resources": { "claims": [] } } }),
            vec!["claims"],
        ),
        (
            "cluster",
            json!({ "proxy": { "affinity": { "nodeAffinty": {} } } }),
            vec!["nodeAffinty"],
        ),
        (
            "cluster",
            json!({ "proxy": { "containerRuntimeEndpoint": "/etc/x/y.sock" } }),
            vec!["spec.proxy.containerRuntimeEndpoint"],
        ),
        (
            "cluster",
            json!({ "proxy": { "containerRuntimeEndpoint": "/run/../y.sock" } }),
            vec!["spec.proxy.containerRuntimeEndpoint"],
        ),
        (
            "cluster",
            json!({ "proxy": { "containerRuntimeEndpoint": "/run/y.sock" } }),
            vec!["spec.proxy.containerRuntimeEndpoint"],
        ),
        (
            "cluster",
            json!({ "proxy": { "containerRuntimeEndpoint": "tcp://run/x/y.sock" } }),
            vec!["spec.proxy.containerRuntimeEndpoint"],
        ),
        (
            "cluster",
            json!({ "proxy": { "metricsPort": 9124 } }),
            vec!["spec.proxy.metricsPort", "probes on port 9124", "such as 9125"],
        ),
        (
            "cluster",
            json!({ "proxy": { "metricsPort": 1023 } }),
            vec!["spec.proxy.metricsPort", "1024"],
        ),
        (
            "cluster",
            json!({ "proxy": { "metricsPort": 65536 } }),
            vec!["spec.proxy.metricsPort", "65535"],
        ),
        (
            "cluster",
            json!({ "proxy": { "metricsPort": "9125" } }),
            vec!["spec.proxy.metricsPort", "expected numeric"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "OnDelete", "rollingUpdate": {} } } }),
            vec!["spec.proxy.updateStrategy", "only for type RollingUpdate"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": {} } }),
            vec!["spec.proxy.updateStrategy.type"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0 } } } }),
            vec!["maxUnavailable", "at least 1"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 3_000_000_000_u32 } } } }),
            vec!["maxUnavailable", "at least 1"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "0%" } } } }),
            vec!["maxUnavailable", "1% to 100%"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "101%" } } } }),
            vec!["maxUnavailable", "1% to 100%"],
        ),
        (
            "cluster",
            json!({ "proxy": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 1 } } } }),
            vec!["maxSurge"],
        ),
    ] {
        let rejected = dry_run(&configs, name, spec.clone())
            .await?
            .expect_err(&spec.to_string());
        assert!(
            words.iter().all(|word| rejected.contains(word)),
            "{spec}: {rejected}"
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn object_without_a_spec_gets_the_frozen_defaults_only() -> Result<()> {
    let configs = configs().await?;
    let object: DynamicObject = serde_json::from_value(
        json!({ "apiVersion": VERSION, "kind": "MultusServiceConfig", "metadata": { "name": "cluster" } }),
    )?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let created = configs.create(&params, &object).await?;
    assert_eq!(created.data["spec"], json!({ "managementState": "Managed" }));
    Ok(())
}
