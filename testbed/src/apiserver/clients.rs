//! Clients of tests: the admin, any user and groups, a service account.
//!
//! Writes: namespaces and service accounts on the apiserver, kubeconfig files in its folder.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::config::Kubeconfig;
use kube::{Client, ResourceExt as _};

use super::{Apiserver, client_from};
use crate::pki::{self, Credentials};

impl Apiserver {
    /// A client as admin (`system:masters`). It belongs to the runtime that makes it.
    pub async fn client(&self) -> Result<Client> {
        client_from(Kubeconfig::read_from(self.kubeconfig())?).await
    }

    /// A client whose requests are authorized as `user` in `groups` and nothing else. The audit log has the name as
    /// `impersonatedUser`.
    pub async fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        let mut kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let admin = kubeconfig
            .auth_infos
            .first_mut()
            .and_then(|named| named.auth_info.as_mut());
        let admin = admin.context("the admin's kubeconfig has no user")?;
        admin.impersonate = Some(user.to_owned());
        admin.impersonate_groups = Some(groups.iter().map(|&group| group.to_owned()).collect());
        client_from(kubeconfig).await
    }

    /// A client with a real token of a service account, which is created when missing.
    pub async fn service_account_client(&self, namespace: &str, name: &str) -> Result<Client> {
        client_from(Kubeconfig::from_yaml(
            &self.token_kubeconfig(namespace, name, None).await?,
        )?)
        .await
    }

    /// [`Self::service_account_client`] with a token bound to `pod`, as a kubelet hands it out: admission policies see
    /// `authentication.kubernetes.io/pod-name`.
    pub async fn pod_client(&self, pod: &Pod) -> Result<Client> {
        let namespace = pod.namespace().context("the pod has no namespace")?;
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let text = self.token_kubeconfig(&namespace, &account, Some(pod)).await?;
        client_from(Kubeconfig::from_yaml(&text)?).await
    }

    /// A kubeconfig file with a real token of a service account, which is created when missing.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let path = self.file(&format!("{namespace}.{name}.kubeconfig"));
        std::fs::write(&path, self.token_kubeconfig(namespace, name, None).await?)?;
        Ok(path)
    }

    /// Creates a namespace of its own for a test, `<prefix>-<number>`, with a `default` service account.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", self.next_namespace());
        let client = self.client().await?;
        let namespace = Namespace {
            metadata: named(&name),
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        // The controller-manager makes it otherwise; without it no Pod is admitted.
        if !self.controller_manager {
            ensure_service_account(client, &name, "default").await?;
        }
        Ok(name)
    }

    async fn token_kubeconfig(&self, namespace: &str, name: &str, pod: Option<&Pod>) -> Result<String> {
        let client = self.client().await?;
        ensure_service_account(client.clone(), namespace, name).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                bound_object_ref: pod.map(bound_to),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let token = answer.status.context("the token request has no answer")?.token;
        let ca = std::fs::read_to_string(self.file("ca.crt"))?;
        pki::kubeconfig(self.url(), &ca, name, &Credentials::Token(&token))
    }
}

fn bound_to(pod: &Pod) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    }
}

async fn ensure_service_account(client: Client, namespace: &str, name: &str) -> Result<()> {
    let account = ServiceAccount {
        metadata: named(name),
        ..ServiceAccount::default()
    };
    match Api::namespaced(client, namespace)
        .create(&PostParams::default(), &account)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot create service account {namespace}/{name}")),
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
