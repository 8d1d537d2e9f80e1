//! Applies the desired objects.
//!
//! Writes: every operand, by server-side apply with one field manager, the cleanup label of nodes, and the finalizer of the
//! configuration. Objects that are up to date are not written.

mod comparison;
mod drift;
pub(crate) mod merge_patch;
mod other_managers;
pub(crate) mod upgrade_order;

use crate::build::Desired;
use crate::cleanup::node_labels::{self, LabelChange};
use crate::events::EventRecorder;
use crate::gather::Observed;
use crate::kinds::{self, for_each_kind};
use crate::operands::Operands;
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, OPERATOR_FIELD_MANAGER};
use drift::{AppliedObjects, Recreated};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::future::ready;
use tracing::info;
use upgrade_order::can_apply;

/// Finalizer that keeps the configuration until nodes are clean and operands are deleted.
pub const FINALIZER: &str = "multusservice.cni.cncf.io/cleanup";

/// Number of nodes that are labelled at once: a thousand nodes one after the other may take longer than a reconcile.
const PARALLEL_LABELS: usize = 8;

/// A failed write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be applied.
    #[error("failed to apply {kind} {name:?}")]
    Apply {
        kind: String,
        name: String,
        /// The answer of the API server.
        source: kube::Error,
    },
    /// An object could not be deleted.
    #[error("failed to delete {kind} {name:?}")]
    Delete {
        kind: String,
        name: String,
        /// The answer of the API server.
        source: kube::Error,
    },
    /// The API server rejects the operands in a dry run; nothing was written.
    #[error("{0}")]
    Rejected(String),
    /// A node could not be labelled.
    #[error("failed to label Node {node:?}")]
    Label {
        /// Its name.
        node: String,
        /// The answer of the API server.
        source: kube::Error,
    },
    /// The finalizer could not be set or removed.
    #[error("failed to change the finalizer of MultusServiceConfig \"cluster\"")]
    Finalizer(#[source] kube::Error),
}

/// Writes the label of one node.
async fn label_node(nodes: &Api<Node>, LabelChange { node, label }: &LabelChange) -> Result<(), Error> {
    let params = PatchParams {
        field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = json!({ "metadata": { "labels": { node_labels::LABEL: label } } });
    match nodes.patch_metadata(node, &params, &Patch::Merge(patch)).await {
        Ok(_) => info!(node, label, "Updated the cleanup label of a node"),
        // The node was deleted, and its rules with it.
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(source) => {
            let node = node.clone();
            return Err(Error::Label { node, source });
        }
    }
    Ok(())
}

/// The only writer of operands.
pub struct Applier {
    client: Client,
    namespace: String,
    recorder: EventRecorder,
    applied: AppliedObjects,
}

impl Applier {
    /// Applies objects in `namespace` and cluster-scoped ones.
    pub fn new(client: Client, namespace: String, recorder: EventRecorder) -> Self {
        Self {
            client,
            namespace,
            recorder,
            applied: AppliedObjects::default(),
        }
    }

    /// Applies the difference and returns the operands afterwards, including those that are being deleted.
    pub async fn apply(&self, desired: &Desired, observed: &Observed) -> Result<Operands, Error> {
        if desired.dry_run {
            self.dry_run(&desired.operands, &observed.live).await?;
        }
        if desired.finalizer {
            self.add_finalizer(&observed.config).await?;
        }
        // Before the proxies: the label must exist before a proxy writes rules. A node that cannot be labelled blocks neither other
        // nodes nor the end of a removal.
        let labelled = self.label(&desired.labels).await;
        let mut recreated = Recreated::new();
        let live = self
            .apply_operands(&desired.operands, &observed.live, &mut recreated)
            .await;
        for (kind, name) in recreated {
            self.recorder.recreated(&observed.config, &kind, &name);
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

    /// Dry-runs the workloads: no other operand depends on the configuration.
    async fn dry_run(&self, desired: &Operands, live: &Operands) -> Result<(), Error> {
        let applied = &self.applied;
        applied
            .dry_run(
                &kinds::api(&self.client, &self.namespace),
                &desired.deployments,
                &live.deployments,
            )
            .await?;
        applied
            .dry_run(
                &kinds::api(&self.client, &self.namespace),
                &desired.daemon_sets,
                &live.daemon_sets,
            )
            .await
    }

    /// Labels every node that can be labelled, and returns the first error.
    async fn label(&self, changes: &[LabelChange]) -> Result<(), Error> {
        let nodes: &Api<Node> = &Api::all(self.client.clone());
        let labels: Vec<_> = changes.iter().map(|change| label_node(nodes, change)).collect();
        stream::iter(labels)
            .buffered(PARALLEL_LABELS)
            .fold(Ok(()), |outcome, labelled| ready(outcome.and(labelled)))
            .await
    }

    async fn apply_operands(
        &self,
        desired: &Operands,
        live: &Operands,
        recreated: &mut Recreated,
    ) -> Result<Operands, Error> {
        let applied = &self.applied;
        let mut now = live.clone();
        macro_rules! converge_kinds {
            ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {
                $(if can_apply(stringify!($field), desired, applied, &now) {
                    let api = kinds::api::<$kind>(&self.client, &self.namespace);
                    now.$field = applied
                        .converge(&api, &desired.$field, &live.$field, recreated)
                        .await?;
                })*
            };
        }
        for_each_kind!(converge_kinds);
        Ok(now)
    }

    /// Deletes in reverse order: workloads before their permissions, and permissions before the policies that confine them.
    async fn prune(&self, desired: &Operands, live: &Operands) -> Result<(), Error> {
        macro_rules! prune_kinds {
            ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {
                [$(async {
                    let api = kinds::api::<$kind>(&self.client, &self.namespace);
                    drift::prune(&api, &desired.$field, &live.$field).await
                }
                .boxed()),*]
            };
        }
        for prune in for_each_kind!(prune_kinds).into_iter().rev() {
            prune.await?;
        }
        Ok(())
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

    /// Not by server-side apply: a tool that re-applies the whole object (a backup tool) owns the finalizer as well, and a
    /// finalizer with two owners stays when one of them releases it. The resourceVersion makes a concurrent change a conflict,
    /// which is retried.
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
        // Metadata only: the finalizer of a configuration that cannot be decoded must be removable, too.
        let configs: Api<MultusServiceConfig> = Api::all(self.client.clone());
        configs
            .patch_metadata(CONFIG_NAME, &params, &Patch::Merge(patch))
            .await
            .map_err(Error::Finalizer)?;
        Ok(())
    }
}
