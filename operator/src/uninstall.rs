//! The break-glass command: removes everything without an operator in the cluster.
//!
//! Writes: deletes the configuration, then takes the same turns as the operator would. It needs an administrator's rights, and the
//! operator's namespace as long as nodes are to be cleaned.

use crate::apply::{self, Applier};
use crate::build::Desired;
use crate::events::Announcer;
use crate::gather::{Observed, operands};
use crate::nodes::LABEL;
use crate::operands::Operands;
use crate::reconcile::{self, Context, reconcile};
use crate::run::Options;
use api::MultusServiceConfig;
use api::names::CONFIG_NAME;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::SignedDuration;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use std::time::Duration;

/// Between two turns.
const PAUSE: Duration = Duration::from_secs(2);
/// What deletions take, beyond the time that nodes are given.
const GRACE: SignedDuration = SignedDuration::from_mins(2);

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error("the API server refused")]
    Api(#[from] kube::Error),
    /// An object could not be deleted.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Time is up.
    #[error("the removal did not end in time; the last turn said: {0}")]
    Unfinished(String),
}

/// Removes everything; returns the nodes whose pods may still hold rules.
pub async fn uninstall(client: Client, options: Options) -> Result<Vec<String>, Error> {
    let limit = options.removal.unwrap_or_default();
    let deadline = tokio::time::Instant::now() + (limit + GRACE).unsigned_abs();
    let namespace = options.namespace.clone();
    let announcer = Announcer::new(client.clone(), options.holder.clone());
    let context = Context::new(client.clone(), options);
    let configs: Api<MultusServiceConfig> = Api::all(client.clone());
    // From here on an operator that runs after all does the same as we do.
    match configs.delete(CONFIG_NAME, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        deleted => drop(deleted?),
    }
    while configs.get_opt(CONFIG_NAME).await?.is_some() {
        let last = reconcile(&context).await;
        if tokio::time::Instant::now() > deadline {
            return Err(Error::Unfinished(told(&last)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let live = Box::pin(operands(&client, &namespace)).await?;
    if live != Operands::default() {
        let applier = Applier::new(client.clone(), namespace, announcer);
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

fn told(turn: &Result<kube::runtime::controller::Action, reconcile::Error>) -> String {
    match turn {
        Ok(_) => "nodes are being cleaned or objects deleted".to_owned(),
        Err(error) => error.to_string(),
    }
}
