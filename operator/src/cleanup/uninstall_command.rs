//! The `uninstall` command: removes all operands without an operator in the cluster.
//!
//! Writes: deletes the configuration, then reconciles as the operator would. It needs cluster-admin, and the operator's namespace
//! as long as nodes are to be cleaned up.

use crate::apply::{self, Applier};
use crate::build::Desired;
use crate::cleanup::node_labels::LABEL;
use crate::events::EventRecorder;
use crate::gather::{Observed, operands};
use crate::operands::Operands;
use crate::options::Options;
use crate::reconcile::{self, Context, reconcile};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, OPERATOR};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{DeleteParams, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use process::error_chain;
use process::events::{self, Publisher};
use std::time::Duration;

/// Interval between two reconciles.
const PAUSE: Duration = Duration::from_secs(2);
/// Time for deletions, in addition to the time limit for nodes.
const GRACE: SignedDuration = SignedDuration::from_mins(2);

/// A removal that did not complete.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server returned an error.
    #[error("failed to access the API server")]
    Api(#[from] kube::Error),
    /// An object could not be deleted.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The removal timed out.
    #[error("the removal timed out; last result: {0}")]
    Unfinished(String),
}

/// Removes all operands and returns the nodes whose pods may still hold rules.
pub async fn uninstall(client: Client, options: Options) -> Result<Vec<String>, Error> {
    let (sender, writer) = events::channel();
    let publisher = Publisher::new(client.clone(), OPERATOR, &options.holder);
    let removal = remove_all(client, options, EventRecorder::new(sender));
    Box::pin(writer.run_beside(publisher, removal)).await
}

async fn remove_all(client: Client, options: Options, recorder: EventRecorder) -> Result<Vec<String>, Error> {
    let limit = options.removal.unwrap_or_default();
    let deadline = tokio::time::Instant::now() + (limit + GRACE).unsigned_abs();
    let namespace = options.namespace.clone();
    let without_waiting = Options {
        removal: Some(SignedDuration::ZERO),
        ..options.clone()
    };
    let waiting = Context::new(client.clone(), options, recorder.clone());
    let without_waiting = Context::new(client.clone(), without_waiting, recorder.clone());
    let configs: Api<PartialObjectMeta<MultusServiceConfig>> = Api::all(client.clone());
    // From here on an operator that still runs does the same.
    match configs.delete(CONFIG_NAME, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        deleted => drop(deleted?),
    }
    let began = tokio::time::Instant::now();
    while exists(&configs).await? {
        // No node can be cleaned up where no pod can be created.
        let is_cleanup_impossible =
            began.elapsed() >= limit.unsigned_abs() || is_terminating(&client, &namespace).await?;
        let last = reconcile(if is_cleanup_impossible {
            &without_waiting
        } else {
            &waiting
        })
        .await;
        if tokio::time::Instant::now() > deadline {
            return Err(Error::Unfinished(describe(&last)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let (live, _) = Box::pin(operands(&client, &namespace)).await?;
    if live != Operands::default() {
        let applier = Applier::new(client.clone(), namespace, recorder);
        let everything = Desired {
            prune: true,
            ..Desired::default()
        };
        let observed = Observed {
            live,
            ..Observed::default()
        };
        applier.apply(&everything, &observed).await?;
    }
    let labelled = Api::<Node>::all(client)
        .list(&ListParams::default().labels(LABEL))
        .await?;
    Ok(labelled.items.iter().map(ResourceExt::name_any).collect())
}

/// A CustomResourceDefinition that is being deleted disappears with its last object: then the answer is a bare 404 without a
/// Status.
async fn exists(configs: &Api<PartialObjectMeta<MultusServiceConfig>>) -> kube::Result<bool> {
    match configs.get(CONFIG_NAME).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// True when nothing can be created in the namespace any more.
async fn is_terminating(client: &Client, namespace: &str) -> kube::Result<bool> {
    let found = Api::<Namespace>::all(client.clone()).get_opt(namespace).await?;
    Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

fn describe(result: &Result<kube::runtime::controller::Action, reconcile::Error>) -> String {
    match result {
        Ok(_) => "cleaning up nodes or deleting objects".to_owned(),
        Err(error) => error_chain(error),
    }
}
