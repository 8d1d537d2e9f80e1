//! Runs the test: network after network, each in a namespace of its own that is deleted whatever happens.

use super::objects::{Objects, namespace_name};
use super::options::{Error, Options};
use super::result::{Connectivity, NetworkResult};
use super::selection::{networks, select};
use super::signals::Signals;
use super::{cluster, steps};
use crate::facts::{self, Read, ReadError, Reader};
use crate::progress::Progress;
use jiff::Timestamp;
use kube::core::DynamicObject;
use std::time::Duration;

/// Tests networks, by default all of `namespace`. A signal ends the test after its cleanup.
///
/// # Errors
/// Nothing was tested, and nothing was created.
pub async fn test(
    reader: &Reader,
    namespace: &str,
    options: &Options,
    progress: &Progress,
) -> Result<Connectivity, Error> {
    let mut signals = Signals::new().map_err(Error::Signals)?;
    progress.say("reading networks and nodes");
    let cluster = facts::cluster(reader).await;
    let selection = select(reader, &cluster, options).await?;
    let networks = networks(reader, namespace, &options.networks).await?;
    let mut connectivity = Connectivity {
        networks: Vec::new(),
        nodes_without_proxy: selection.nodes_without_proxy,
        is_interrupted: false,
    };
    for (name, network) in networks {
        let objects = Objects {
            namespace: namespace_name(unique()),
            network: name.name.clone(),
            image: selection.image.clone(),
            nodes: selection.nodes.clone(),
        };
        let outcome = tokio::select! {
            outcome = of_network(reader, &objects, network, options.timeout, progress) => Some(outcome),
            () = signals.any() => None,
        };
        connectivity.is_interrupted = outcome.is_none();
        // Also when its creation failed: a request without an answer may have been served.
        progress.say(&format!("deleting namespace {}", objects.namespace));
        let deleted = cluster::delete_namespace(reader, &objects.namespace).await;
        let mut result = outcome.unwrap_or_else(|| NetworkResult::failed("interrupted"));
        result.network = name.to_string();
        result.left = left(&objects.namespace, deleted);
        connectivity.networks.push(result);
        if connectivity.is_interrupted {
            break;
        }
    }
    Ok(connectivity)
}

async fn of_network(
    reader: &Reader,
    objects: &Objects,
    network: Read<Option<DynamicObject>>,
    timeout: Duration,
    progress: &Progress,
) -> NetworkResult {
    let network = match network {
        Ok(Some(network)) => network,
        Ok(None) => return NetworkResult::failed("the network-attachment-definition does not exist"),
        Err(error) => return NetworkResult::failed(error.to_string()),
    };
    let steps = steps::Steps {
        reader,
        objects,
        timeout,
        progress,
    };
    match steps.run(&network).await {
        Ok(result) => result,
        Err(error) => NetworkResult::failed(error.to_string()),
    }
}

/// A message about a namespace that was not deleted. One that was never created is none.
fn left(namespace: &str, deleted: Read<()>) -> Option<String> {
    let error = deleted.err()?;
    if let ReadError::Forbidden(right) = &error
        && right.verb != "delete"
    {
        return None;
    }
    Some(format!("{error}; run kubectl delete namespace {namespace}"))
}

/// Differs between the networks of a run, and between runs of all users.
fn unique() -> u64 {
    let now = Timestamp::now().as_nanosecond();
    u64::try_from(now & i128::from(u64::MAX >> 8)).unwrap_or_default() ^ u64::from(std::process::id())
}

/// Deletes the namespaces that killed runs left; returns their names.
pub async fn cleanup(reader: &Reader, progress: &Progress) -> Read<Vec<String>> {
    let left = cluster::left_namespaces(reader).await?;
    for namespace in &left {
        progress.say(&format!("deleting namespace {namespace}"));
        cluster::delete_namespace(reader, namespace).await?;
    }
    Ok(left)
}
