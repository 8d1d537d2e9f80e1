//! What the monitoring of a cluster needs: tokens, rights on `/metrics`, and the TLS profile of OpenShift.
//!
//! Writes: service accounts, roles, and the kind `apiservers.config.openshift.io` with its object.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::Apiserver;
use crate::wait;

const RBAC: &str = "rbac.authorization.k8s.io";

impl Apiserver {
    /// A token of a service account in the namespace `default`, which is created when missing.
    pub async fn token(&self, account: &str) -> Result<String> {
        self.service_account_client("default", account).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await?;
        Ok(answer.status.context("the token request has no answer")?.token)
    }

    /// Lets a service account of the namespace `default` get `/metrics`.
    pub async fn allow_metrics(&self, account: &str) -> Result<()> {
        let name = format!("metrics-{account}");
        let rules = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
        self.apply(
            RBAC,
            "ClusterRole",
            json!({"metadata": {"name": name}, "rules": rules}),
        )
        .await?;
        let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": "default"}]);
        let role = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": name});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        self.apply(RBAC, "ClusterRoleBinding", binding).await
    }

    /// Sets `spec.tlsSecurityProfile.type` of OpenShift, for all components. Defines the kind when it is missing.
    pub async fn set_tls_profile(&self, profile: &str) -> Result<()> {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let names = json!({"plural": "apiservers", "singular": "apiserver", "kind": "APIServer"});
        let definition = json!({
            "metadata": {
                "name": "apiservers.config.openshift.io",
                "annotations": {"api-approved.kubernetes.io": "https://github.com/openshift/api/pull/470"},
            },
            "spec": {"group": "config.openshift.io", "scope": "Cluster", "names": names, "versions": [version]},
        });
        self.apply("apiextensions.k8s.io", "CustomResourceDefinition", definition)
            .await?;
        let spec = json!({"tlsAdherence": "StrictAllComponents", "tlsSecurityProfile": {"type": profile}});
        let object = json!({"metadata": {"name": "cluster"}, "spec": spec});
        wait::eventually(super::READY, "the kind APIServer to be served", async || {
            let applied = self
                .apply("config.openshift.io", "APIServer", object.clone())
                .await;
            Ok(applied.ok())
        })
        .await
    }

    /// Applies a cluster-scoped object of version `v1`.
    async fn apply(&self, group: &str, kind: &str, mut object: Value) -> Result<()> {
        object["apiVersion"] = json!(format!("{group}/v1"));
        object["kind"] = json!(kind);
        let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(self.client().await?, &resource);
        api.patch(
            &name,
            &PatchParams::apply("testbed").force(),
            &Patch::Apply(&object),
        )
        .await?;
        Ok(())
    }
}
