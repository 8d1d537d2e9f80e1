//! Makes the cluster hold what was built.
//!
//! Writes: every operand, by server-side apply with one field manager, a label of nodes, and the finalizer of the configuration. Nothing is written
//! that is already as it should be.

mod converge;
mod drift;
pub(crate) mod merge_patch;
mod other_managers;

use crate::build::{Desired, proxy_may_follow};
use crate::cleanup::node_labels::{self, Change};
use crate::events::Announcer;
use crate::gather::Observed;
use crate::operands::Operands;
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, OPERATOR_FIELD_MANAGER};
use converge::{Applied, Recreated};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tracing::info;

/// Keeps the configuration until nodes are clean and operands are gone.
pub const FINALIZER: &str = "multusservice.cni.cncf.io/cleanup";

/// Which write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be applied.
    #[error("{kind} {name:?} could not be applied: {}", words(source))]
    Apply {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// An object could not be deleted.
    #[error("{kind} {name:?} could not be deleted: {}", words(source))]
    Delete {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The API server does not take what the configuration leads to; nothing was written.
    #[error("{0}")]
    Rejected(String),
    /// A node could not be labelled.
    #[error("Node {node:?} could not be labelled: {}", words(source))]
    Label {
        /// Its name.
        node: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The finalizer could not be set or removed.
    #[error("the finalizer of MultusServiceConfig \"cluster\" could not be changed: {}", words(.0))]
    Finalizer(#[source] kube::Error),
}

/// What the API server said, without the structure it came in.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The only writer of operands.
pub struct Applier {
    client: Client,
    namespace: String,
    announcer: Announcer,
    applied: Applied,
}

impl Applier {
    /// Will write objects in `namespace`, and cluster-scoped ones.
    pub fn new(client: Client, namespace: String, announcer: Announcer) -> Self {
        Self {
            client,
            namespace,
            announcer,
            applied: Applied::default(),
        }
    }

    /// Writes the difference; returns our objects as they are afterwards, with those that are being deleted.
    pub async fn apply(&self, desired: &Desired, observed: &Observed) -> Result<Operands, Error> {
        if desired.rehearsal {
            self.rehearse(&desired.operands, &observed.live).await?;
        }
        if desired.finalizer {
            self.add_finalizer(&observed.config).await?;
        }
        // Before the proxies: a node must be remembered before there is something to remember. One that cannot be labelled holds
        // up no other, and not the end of a removal.
        let labelled = self.label(&desired.labels).await;
        let mut recreated = Recreated::new();
        let live = self
            .apply_operands(&desired.operands, &observed.live, &mut recreated)
            .await;
        for (kind, name) in recreated {
            self.announcer.recreated(&observed.config, &kind, &name).await;
        }
        let live = live?;
        if desired.prune {
            self.prune(&desired.operands, &observed.live).await?;
        }
        if !desired.finalizer {
            self.remove_finalizer(&observed.config).await?;
        }
        labelled.map(|()| live)
    }

    /// Only workloads depend on what an administrator writes.
    async fn rehearse(&self, desired: &Operands, live: &Operands) -> Result<(), Error> {
        let applied = &self.applied;
        applied
            .rehearse(&self.here(), &desired.deployments, &live.deployments)
            .await?;
        applied
            .rehearse(&self.here(), &desired.daemon_sets, &live.daemon_sets)
            .await
    }

    /// Labels every node that can be labelled; the first that could not is the error.
    async fn label(&self, changes: &[Change]) -> Result<(), Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let mut outcome = Ok(());
        for Change { node, label } in changes {
            let patch = json!({ "metadata": { "labels": { node_labels::LABEL: label } } });
            match nodes.patch_metadata(node, &params, &Patch::Merge(patch)).await {
                Ok(_) => info!(node, label, "Labelled"),
                // It went; so did its rules.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(source) => {
                    let node = node.clone();
                    outcome = outcome.and(Err(Error::Label { node, source }));
                }
            }
        }
        outcome
    }

    async fn apply_operands(
        &self,
        desired: &Operands,
        live: &Operands,
        recreated: &mut Recreated,
    ) -> Result<Operands, Error> {
        let Operands {
            admission_policies,
            admission_policy_bindings,
            service_accounts,
            cluster_role_bindings,
            role_bindings,
            network_policies,
            pod_disruption_budgets,
            deployments,
            daemon_sets,
            console_quick_starts,
            console_yaml_samples,
        } = desired;
        let applied = &self.applied;
        let mut now = Operands {
            admission_policies: applied
                .converge(
                    &self.everywhere(),
                    admission_policies,
                    &live.admission_policies,
                    recreated,
                )
                .await?,
            admission_policy_bindings: applied
                .converge(
                    &self.everywhere(),
                    admission_policy_bindings,
                    &live.admission_policy_bindings,
                    recreated,
                )
                .await?,
            service_accounts: applied
                .converge(&self.here(), service_accounts, &live.service_accounts, recreated)
                .await?,
            cluster_role_bindings: applied
                .converge(
                    &self.everywhere(),
                    cluster_role_bindings,
                    &live.cluster_role_bindings,
                    recreated,
                )
                .await?,
            role_bindings: applied
                .converge(&self.here(), role_bindings, &live.role_bindings, recreated)
                .await?,
            network_policies: applied
                .converge(&self.here(), network_policies, &live.network_policies, recreated)
                .await?,
            pod_disruption_budgets: applied
                .converge(
                    &self.here(),
                    pod_disruption_budgets,
                    &live.pod_disruption_budgets,
                    recreated,
                )
                .await?,
            deployments: applied
                .converge(&self.here(), deployments, &live.deployments, recreated)
                .await?,
            daemon_sets: live.daemon_sets.clone(),
            console_quick_starts: live.console_quick_starts.clone(),
            console_yaml_samples: live.console_yaml_samples.clone(),
        };
        // A mere repair of the proxy waits for nobody.
        let is_repair = daemon_sets.iter().all(|proxy| applied.is_asked(proxy));
        if deployments.is_empty() || is_repair || proxy_may_follow(&now) {
            now.daemon_sets = applied
                .converge(&self.here(), daemon_sets, &live.daemon_sets, recreated)
                .await?;
        }
        // Last: what is only looked at holds up nothing that works.
        now.console_quick_starts = applied
            .converge(
                &self.everywhere(),
                console_quick_starts,
                &live.console_quick_starts,
                recreated,
            )
            .await?;
        now.console_yaml_samples = applied
            .converge(
                &self.everywhere(),
                console_yaml_samples,
                &live.console_yaml_samples,
                recreated,
            )
            .await?;
        Ok(now)
    }

    /// Backwards: what runs goes before what it is allowed to do, and that before what confines it.
    async fn prune(&self, desired: &Operands, live: &Operands) -> Result<(), Error> {
        let Operands {
            admission_policies,
            admission_policy_bindings,
            service_accounts,
            cluster_role_bindings,
            role_bindings,
            network_policies,
            pod_disruption_budgets,
            deployments,
            daemon_sets,
            console_quick_starts,
            console_yaml_samples,
        } = desired;
        converge::prune(
            &self.everywhere(),
            console_yaml_samples,
            &live.console_yaml_samples,
        )
        .await?;
        converge::prune(
            &self.everywhere(),
            console_quick_starts,
            &live.console_quick_starts,
        )
        .await?;
        converge::prune(&self.here(), daemon_sets, &live.daemon_sets).await?;
        converge::prune(&self.here(), deployments, &live.deployments).await?;
        converge::prune(&self.here(), pod_disruption_budgets, &live.pod_disruption_budgets).await?;
        converge::prune(&self.here(), network_policies, &live.network_policies).await?;
        converge::prune(&self.here(), role_bindings, &live.role_bindings).await?;
        converge::prune(
            &self.everywhere(),
            cluster_role_bindings,
            &live.cluster_role_bindings,
        )
        .await?;
        converge::prune(&self.here(), service_accounts, &live.service_accounts).await?;
        converge::prune(
            &self.everywhere(),
            admission_policy_bindings,
            &live.admission_policy_bindings,
        )
        .await?;
        converge::prune(&self.everywhere(), admission_policies, &live.admission_policies).await
    }

    fn here<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn everywhere<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    async fn add_finalizer(&self, config: &MultusServiceConfig) -> Result<(), Error> {
        if config.finalizers().iter().any(|name| name == FINALIZER)
            || config.metadata.deletion_timestamp.is_some()
        {
            return Ok(());
        }
        let finalizers = config.finalizers().iter().map(String::as_str).chain([FINALIZER]);
        self.set_finalizers(config, finalizers.collect()).await
    }

    async fn remove_finalizer(&self, config: &MultusServiceConfig) -> Result<(), Error> {
        if !config.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        info!("Removed all operands");
        let others = config
            .finalizers()
            .iter()
            .map(String::as_str)
            .filter(|&name| name != FINALIZER);
        self.set_finalizers(config, others.collect()).await
    }

    /// Not by server-side apply: whoever re-applied the whole object (a backup tool) owns the finalizer as well, and a finalizer
    /// that two own stays when one lets go. The resourceVersion makes a concurrent change a conflict, which is retried.
    async fn set_finalizers(&self, config: &MultusServiceConfig, finalizers: Vec<&str>) -> Result<(), Error> {
        let patch = json!({ "metadata": {
            "uid": config.metadata.uid,
            "resourceVersion": config.metadata.resource_version,
            "finalizers": finalizers,
        }});
        let params = PatchParams {
            field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        // Metadata alone: a configuration that cannot be read must be let go, too.
        let configs: Api<MultusServiceConfig> = Api::all(self.client.clone());
        configs
            .patch_metadata(CONFIG_NAME, &params, &Patch::Merge(patch))
            .await
            .map_err(Error::Finalizer)?;
        Ok(())
    }
}
