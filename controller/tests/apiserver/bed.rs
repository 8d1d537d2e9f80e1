//! One apiserver and one controller, the shipped binary under its shipped role, for the whole test binary; a namespace per test.

pub(crate) mod audit;
mod child_process;
mod controller_process;
mod fixture;

pub(crate) use child_process::Child;
pub(crate) use controller_process::Controller;
pub(crate) use fixture::{Fixture, endpoints, merge};

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use api::names;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use testbed::apiserver::Apiserver;
use tokio::sync::OnceCell;

/// The roles that users install. kustomize adds the namespace of the Role.
pub(crate) const RBAC: &str = include_str!("../../../config/rbac/controller_role.yaml");
const POLICIES: [&str; 3] = [
    include_str!("../../../operator/manifests/admission-controller-endpointslices.yaml"),
    include_str!("../../../operator/manifests/admission-controller-status.yaml"),
    include_str!("../../../operator/manifests/admission-events.yaml"),
];
const ACCOUNT: &str = "multus-service-controller";

/// The common server and controller.
pub(crate) struct Bed {
    pub(crate) server: &'static Apiserver,
    pub(crate) controller: Controller,
}

impl Bed {
    /// Started by the first test.
    pub(crate) async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Bed> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || {
                let server = Apiserver::shared().await?;
                let kubeconfig = prepare(server).await?;
                let controller = Controller::start(
                    &kubeconfig,
                    server.folder(),
                    ACCOUNT,
                    &["--service-cidrs", "172.30.0.0/16,fd00:96::/112"],
                )?;
                controller.wait_ready().await?;
                Ok(Self { server, controller })
            })
            .await
    }

    /// A namespace with the network `testnet1`.
    pub(crate) async fn fixture(&self, prefix: &str) -> Result<Fixture> {
        Fixture::new(self.server, prefix).await
    }
}

/// Installs the prerequisites of the controller; returns its kubeconfig.
pub(crate) async fn prepare(server: &Apiserver) -> Result<PathBuf> {
    define_networks(&server.client().await?).await?;
    prepare_without_networks(server).await
}

/// Installs the CustomResourceDefinition of Multus.
pub(crate) async fn define_networks(client: &Client) -> Result<()> {
    let crd: DynamicObject = serde_saphyr::from_str(include_str!("network-attachment-definition-crd.yaml"))?;
    let crds = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    ));
    Api::<DynamicObject>::all_with(client.clone(), &crds)
        .create(&PostParams::default(), &crd)
        .await?;
    Ok(())
}

/// [`prepare`] for a cluster without Multus.
pub(crate) async fn prepare_without_networks(server: &Apiserver) -> Result<PathBuf> {
    let client = server.client().await?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": names::NAMESPACE}}))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    for (name, zone) in [("node-1", "zone-a"), ("node-2", "zone-b")] {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}))?;
        let nodes: Api<Node> = Api::all(client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        let status = json!({"status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    grant(&client).await?;
    confine(&client).await?;
    server.service_account_kubeconfig(names::NAMESPACE, ACCOUNT).await
}

/// With the admission policies that the operator applies: the controller must not need what they forbid.
async fn confine(client: &Client) -> Result<()> {
    for policy in POLICIES {
        for object in serde_saphyr::from_multiple::<DynamicObject>(policy)? {
            let kind = object.types.as_ref().context("no kind")?.kind.clone();
            let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
            let resource = match kind.kind.as_str() {
                "ValidatingAdmissionPolicy" => {
                    ApiResource::from_gvk_with_plural(&kind, "validatingadmissionpolicies")
                }
                _ => ApiResource::from_gvk(&kind),
            };
            Api::<DynamicObject>::all_with(client.clone(), &resource)
                .create(&PostParams::default(), &object)
                .await?;
        }
    }
    Ok(())
}

async fn grant(client: &Client) -> Result<()> {
    let roles: Vec<Value> = serde_saphyr::from_multiple(RBAC)?;
    let subject = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": names::NAMESPACE}]);
    for mut role in roles {
        let kind = role["kind"].as_str().context("a role has no kind")?.to_owned();
        if kind == "Role" {
            role["metadata"]["namespace"] = json!(names::NAMESPACE);
        }
        let meta = role["metadata"].clone();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]}, "subjects": subject,
        });
        for object in [role, binding] {
            let object: DynamicObject = serde_json::from_value(object)?;
            let kind = object
                .types
                .as_ref()
                .map(|types| types.kind.clone())
                .context("no kind")?;
            let resource =
                ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", &kind));
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            api.create(&PostParams::default(), &object).await?;
        }
    }
    Ok(())
}
