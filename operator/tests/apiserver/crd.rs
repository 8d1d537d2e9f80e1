//! The CRD as a real apiserver understands it: a good and a bad value for every rule and field.

use anyhow::Result;
use api::config::crd;
use e2e::apiserver::Apiserver;
use e2e::wait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::runtime::{conditions, wait::Condition as _};
use serde_json::{Value, json};
use std::time::Duration;

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

/// What the apiserver says to this object; nothing is stored.
async fn verdict(configs: &Api<DynamicObject>, name: &str, spec: Value) -> Result<Result<Value, String>> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": VERSION, "kind": "MultusServiceConfig", "metadata": { "name": name }, "spec": spec,
    }))?;
    // Strict, as kubectl asks for it.
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
    ] {
        let accepted = verdict(&configs, "cluster", spec.clone()).await?;
        assert!(accepted.is_ok(), "{spec}: {accepted:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn bad_values_are_refused_by_name() -> Result<()> {
    let configs = configs().await?;
    for (name, spec, words) in [
        ("other", json!({}), vec!["singleton", "'cluster'"]),
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
    ] {
        let refused = verdict(&configs, name, spec.clone())
            .await?
            .expect_err(&spec.to_string());
        assert!(
            words.iter().all(|word| refused.contains(word)),
            "{spec}: {refused}"
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn an_object_without_a_spec_gets_the_frozen_defaults_only() -> Result<()> {
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
