//! Admission policies for status writes, exercised with real tokens.

use crate::cluster::{Cluster, apply_policy, create, object};
use anyhow::Result;
use api::names::{ACCEPTED_CONDITION, RULES_APPLIED_CONDITION};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Patches the status; returns the API server's error message.
async fn patch_status<K>(api: &Api<K>, name: &str, patch: Value) -> Result<(), String>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patched = api
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await;
    patched.map(|_| ()).map_err(|error| error.to_string())
}

/// Waits until the patch is rejected with these words: a policy takes effect shortly after its creation.
async fn assert_rejected<K>(api: &Api<K>, name: &str, patch: &Value, words: &str)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let began = Instant::now();
    loop {
        let result = patch_status(api, name, patch.clone()).await;
        if result.as_ref().is_err_and(|why| why.contains(words)) {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{patch} on {name}: {result:?}, not {words:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn proxy_may_change_only_its_condition_on_its_own_pod() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (own, _other) = (
        cluster.proxy_pod("proxy").await?,
        cluster.proxy_pod("proxy-b").await?,
    );
    let pods: Api<Pod> = Api::namespaced(cluster.server.pod_client(&own).await?, "multus-service");
    let condition_patch = json!({"status": {"conditions": [condition(RULES_APPLIED_CONDITION, "True")]}});

    assert_rejected(
        &pods,
        "proxy-b",
        &condition_patch,
        "its own pod only, which is 'proxy'",
    )
    .await;
    let ready = json!({"status": {"conditions": [condition("Ready", "True")]}});
    assert_rejected(
        &pods,
        "proxy",
        &ready,
        "multusservice.cni.cncf.io/RulesApplied only",
    )
    .await;
    for status in [
        json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}),
        json!({"phase": "Failed"}),
        json!({"message": "x"}),
    ] {
        assert_rejected(
            &pods,
            "proxy",
            &json!({"status": status}),
            "nothing in the status",
        )
        .await;
    }
    for metadata in [
        json!({"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}),
        json!({"labels": {"app": "other"}}),
    ] {
        assert_rejected(
            &pods,
            "proxy",
            &json!({"metadata": metadata}),
            "labels, annotations",
        )
        .await;
    }
    assert_eq!(
        patch_status(&pods, "proxy", condition_patch.clone()).await,
        Ok(())
    );

    // A token that is not bound to a pod is rejected.
    let unbound = cluster
        .server
        .service_account_client("multus-service", "multus-service-proxy")
        .await?;
    let unbound: Api<Pod> = Api::namespaced(unbound, "multus-service");
    assert_rejected(&unbound, "proxy", &condition_patch, "its own pod only").await;
    // Pods in other namespaces are rejected, even with the same name.
    let manifest =
        json!({"metadata": {"name": "proxy"}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
    create(
        Api::namespaced(cluster.admin.clone(), &cluster.namespace),
        &object::<Pod>(manifest),
    )
    .await?;
    let elsewhere: Api<Pod> = Api::namespaced(cluster.server.pod_client(&own).await?, &cluster.namespace);
    assert_rejected(&elsewhere, "proxy", &condition_patch, "its own pod only").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn controller_may_change_only_its_condition_on_managed_services() -> Result<()> {
    let cluster = Cluster::start().await?;
    let admin = &cluster.admin;
    let account: ServiceAccount = object(json!({"metadata": {"name": "multus-service-controller"}}));
    create(Api::namespaced(admin.clone(), "multus-service"), &account).await?;
    let roles = include_str!("../../../config/rbac/controller_role.yaml");
    let (role, _) = roles.split_once("\n---\n").unwrap_or((roles, ""));
    create(
        Api::all(admin.clone()),
        &serde_saphyr::from_str::<ClusterRole>(role)?,
    )
    .await?;
    let binding: ClusterRoleBinding = object(json!({
        "metadata": {"name": "multus-service-controller"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "multus-service-controller"},
        "subjects": [{"kind": "ServiceAccount", "name": "multus-service-controller", "namespace": "multus-service"}],
    }));
    create(Api::all(admin.clone()), &binding).await?;
    apply_policy(
        admin,
        include_str!("../../../operator/manifests/admission-controller-status.yaml"),
    )
    .await?;

    let managed = cluster.service("managed", "macvlan1").await?;
    let plain: Service = object(json!({"metadata": {"name": "plain"}, "spec": {"ports": [{"port": 80}]}}));
    create(Api::namespaced(admin.clone(), &cluster.namespace), &plain).await?;
    let client = cluster
        .server
        .service_account_client("multus-service", "multus-service-controller")
        .await?;
    let services: Api<Service> = Api::namespaced(client, &cluster.namespace);
    let accepted = json!({"status": {"conditions": [condition(ACCEPTED_CONDITION, "True")]}});

    assert_rejected(&services, "plain", &accepted, "only on Services labelled").await;
    let other = json!({"status": {"conditions": [condition("LoadBalancerReady", "True")]}});
    assert_rejected(
        &services,
        "managed",
        &other,
        "multusservice.cni.cncf.io/Accepted only",
    )
    .await;
    // The API server itself rejects addresses on Services of other types.
    let as_admin: Api<Service> = Api::namespaced(admin.clone(), &cluster.namespace);
    let balanced = json!({"spec": {"type": "LoadBalancer"}});
    as_admin
        .patch("managed", &PatchParams::default(), &Patch::Merge(&balanced))
        .await?;
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    assert_rejected(&services, "managed", &address, "nothing in the status").await;
    let annotated = json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/service-network": "other"}}});
    assert_rejected(&services, "managed", &annotated, "labels, annotations").await;
    assert_eq!(patch_status(&services, "managed", accepted).await, Ok(()));

    // On a Service that is no longer managed the condition may be deleted.
    let unlabel = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": null}}});
    as_admin
        .patch(
            &managed.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&unlabel),
        )
        .await?;
    let delete_condition =
        json!({"status": {"conditions": [{"$patch": "delete", "type": ACCEPTED_CONDITION}]}});
    assert_eq!(patch_status(&services, "managed", delete_condition).await, Ok(()));
    Ok(())
}
