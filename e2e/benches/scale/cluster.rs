//! The API server and what is in it. Our slices are written by the controller itself.

use super::Size;
use super::objects::{self, Place};
use anyhow::{Context as _, Result};
use api::names;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::json;
use std::time::Duration;
use testbed::apiserver::{Apiserver, Options};
use testbed::wait;

const NETWORKS: &str =
    include_str!("../../../controller/tests/apiserver/network-attachment-definition-crd.yaml");
const SOON: Duration = Duration::from_secs(30);
const PARALLEL: usize = 16;

pub(crate) struct Cluster {
    pub(crate) server: Apiserver,
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    pub(crate) size: Size,
    /// Our slices.
    pub(crate) ours: Vec<EndpointSlice>,
    /// Slices of ordinary Services.
    pub(crate) ordinary: Vec<EndpointSlice>,
}

impl Cluster {
    pub(crate) async fn start(size: &Size) -> Result<Self> {
        let server = Apiserver::start(Options::default()).await?;
        let admin = server.client().await?;
        let namespace = server.namespace("scale").await?;
        let mut cluster = Self {
            server,
            admin,
            namespace,
            size: size.clone(),
            ours: Vec::new(),
            ordinary: Vec::new(),
        };
        cluster.define_networks().await?;
        cluster.store().await?;
        cluster.services().await?;
        cluster.run_controller().await?;
        cluster.ours = cluster.slices(names::MANAGED_BY).await?;
        cluster.ordinary = cluster.slices("endpointslice-controller.k8s.io").await?;
        Ok(cluster)
    }

    /// Returns the configuration of an administrator's client, exempt from priority and fairness.
    pub(crate) async fn config(&self) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(self.server.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(config)
    }

    pub(crate) fn network(&self, number: usize) -> String {
        format!("net-{}", number % self.size.networks)
    }

    async fn define_networks(&self) -> Result<()> {
        let kind = |group: &str, kind: &str, plural: &str| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
        };
        let definitions = kind(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        );
        let definition: DynamicObject = serde_saphyr::from_str(NETWORKS)?;
        Api::<DynamicObject>::all_with(self.admin.clone(), &definitions)
            .create(&PostParams::default(), &definition)
            .await?;
        let networks = kind(
            "k8s.cni.cncf.io",
            "NetworkAttachmentDefinition",
            "network-attachment-definitions",
        );
        let networks = Api::<DynamicObject>::namespaced_with(self.admin.clone(), &self.namespace, &networks);
        for number in 0..self.size.networks {
            let network = serde_json::from_value(
                json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
                "metadata": {"name": self.network(number)}, "spec": {"config": "{}"}}),
            )?;
            wait::eventually(SOON, "networks to be served", async || {
                Ok(Some(networks.create(&PostParams::default(), &network).await?))
            })
            .await?;
        }
        Ok(())
    }

    /// Nodes, the pods of our Services, each on a node that has its network, and the slices of ordinary Services.
    async fn store(&self) -> Result<()> {
        let Size {
            proxies,
            services,
            endpoints,
            networks,
            ..
        } = self.size;
        let nodes = (0..proxies).map(objects::node);
        self.server.store(nodes).await?;
        let pods = (0..services * endpoints).map(|number| {
            let service = number / endpoints;
            let network = service % networks;
            let on_it = (proxies - network).div_ceil(networks);
            // Position among the pods of its network: consecutive ones are on different nodes, so that every node has some.
            let position = service / networks * endpoints + number % endpoints;
            let place = Place {
                namespace: &self.namespace,
                network: &self.network(service),
                node: network + position % on_it * networks,
                app: &format!("svc-{service}"),
            };
            objects::pod(&place, number)
        });
        self.server.store(pods).await?;
        let slices = (0..services)
            .map(|service| objects::ordinary_slice(&self.namespace, service, endpoints, proxies));
        self.server.store(slices).await
    }

    async fn services(&self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.admin.clone(), &self.namespace);
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        let both = (0..self.size.services).flat_map(|n| {
            let (name, network) = (format!("svc-{n}"), self.network(n));
            [
                json!({"metadata": {"name": name, "labels": {names::PROXY_NAME_LABEL: names::PROXY_NAME},
                        "annotations": {names::SERVICE_NETWORK_ANNOTATION: network}},
                    "spec": {"selector": {"app": name}, "ports": ports}}),
                json!({"metadata": {"name": format!("ordinary-{n}")}, "spec": {"ports": ports}}),
            ]
        });
        let both: Vec<Service> = both.map(serde_json::from_value).collect::<Result<_, _>>()?;
        stream::iter(both)
            .map(|service| {
                let services = services.clone();
                async move { services.create(&PostParams::default(), &service).await.map(drop) }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    /// Runs the controller until it has written the slices of all our Services.
    async fn run_controller(&self) -> Result<()> {
        let args = process::ProcessArgs {
            kubeconfig: Some(self.server.kubeconfig()),
            log_level: "warn".to_owned(),
            ..process::ProcessArgs::default()
        };
        let identity = process::Identity {
            name: names::CONTROLLER,
            version: env!("CARGO_PKG_VERSION"),
            commit: None,
            http: ([127, 0, 0, 1], 0).into(),
            metrics: ([127, 0, 0, 1], 0).into(),
        };
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = controller::metrics::Metrics::register(&mut registry);
        let settings = controller::settings::Settings {
            max_endpoints_per_slice: 100,
            isolation: api::NamespaceIsolation::Open,
            service_cidrs: Vec::new(),
        };
        let work = |process| async move {
            Box::pin(controller::run(
                process,
                settings,
                metrics,
                process::traces::Traces::default(),
                "scale",
                None,
            ))
            .await
        };
        let wanted = self.size.services * self.size.endpoints;
        tokio::select! {
            ended = process::run(identity, &args, registry, work) => {
                ended?;
                anyhow::bail!("the controller ended")
            }
            written = wait::eventually(Duration::from_mins(5), "all slices", async || {
                let slices = self.slices(names::MANAGED_BY).await?;
                let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
                Ok((endpoints == wanted).then_some(()))
            }) => written,
        }
    }

    async fn slices(&self, managed_by: &str) -> Result<Vec<EndpointSlice>> {
        let theirs = ListParams::default().labels(&format!("{}={managed_by}", names::MANAGED_BY_LABEL));
        let slices: Api<EndpointSlice> = Api::namespaced(self.admin.clone(), &self.namespace);
        Ok(slices.list(&theirs).await.context("slices")?.items)
    }
}
