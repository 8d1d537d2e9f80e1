//! Runs the test: network after network, each in a namespace of its own that is deleted whatever happens.

use super::cluster;
use super::objects::{Objects, namespace_name};
use super::options::{Error, Options};
use super::result::{Connectivity, NetworkResult};
use super::selection::{Selection, networks, select};
use super::signals::Signals;
use super::steps::Steps;
use crate::facts::{self, Read, ReadError, Reader};
use crate::progress::Progress;
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use std::time::Duration;
use tokio::time::sleep;

/// Annotation of a network-attachment-definition: the device plugin's resource.
const DEVICE_ANNOTATION: &str = "k8s.v1.cni.cncf.io/resourceName";
/// Life of pods in seconds beyond both phases of a test.
const SPARE: u64 = 300;
/// Pause after a request without an answer, which the API server may still serve.
const UNANSWERED: Duration = Duration::from_secs(5);

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
    cluster::check_permissions(reader).await?;
    let cluster = facts::cluster(reader).await;
    let selection = select(reader, &cluster, options).await?;
    let networks = networks(reader, namespace, &options.networks).await?;
    let mut connectivity = Connectivity {
        networks: Vec::new(),
        nodes_without_proxy: selection.nodes_without_proxy.clone(),
        is_interrupted: false,
    };
    for (name, network) in networks {
        let network = network.map_err(|error| error.to_string());
        let missing = || "the network-attachment-definition does not exist".to_owned();
        let network = match network.and_then(|network| network.ok_or_else(missing)) {
            Ok(network) => network,
            Err(problem) => {
                connectivity
                    .networks
                    .push(NetworkResult::failed(problem).named(&name));
                continue;
            }
        };
        let objects = objects(&network, &selection, options.timeout);
        let steps = Steps {
            reader,
            objects: &objects,
            timeout: options.timeout,
            progress,
        };
        let result = in_a_namespace(&steps, &network, &mut signals).await;
        connectivity.is_interrupted = result.is_none();
        let mut result = result.unwrap_or_else(|| NetworkResult::failed("interrupted"));
        progress.say(&format!("deleting namespace {}", objects.namespace));
        let deleted = cluster::delete_namespace(reader, &objects.namespace).await;
        result.left = left(&objects.namespace, deleted);
        connectivity.networks.push(result.named(&name));
        if connectivity.is_interrupted {
            break;
        }
    }
    Ok(connectivity)
}

fn objects(network: &DynamicObject, selection: &Selection, timeout: Duration) -> Objects {
    Objects {
        namespace: namespace_name(unique()),
        network: network.name_any(),
        image: selection.image.clone(),
        nodes: selection.nodes.clone(),
        server_nodes: selection.server_nodes.clone(),
        device: network.annotations().get(DEVICE_ANNOTATION).cloned(),
        deadline: 2 * timeout.as_secs() + SPARE,
    }
}

/// Creates the namespace and tests the network; `None`: a signal came.
async fn in_a_namespace(
    steps: &Steps<'_>,
    network: &DynamicObject,
    signals: &mut Signals,
) -> Option<NetworkResult> {
    // No signal ends this request: the API server could serve it after the namespace was looked for.
    if let Err(error) = cluster::create_namespace(steps.reader, steps.objects).await {
        if let ReadError::Failed { .. } = error {
            sleep(UNANSWERED).await;
        }
        return Some(NetworkResult::failed(error.to_string()));
    }
    tokio::select! {
        outcome = steps.run(network) => Some(match outcome {
            Ok(result) => result,
            Err(error) => NetworkResult::failed(error.to_string()),
        }),
        () = signals.any() => None,
    }
}

/// A message about a namespace that was not deleted.
fn left(namespace: &str, deleted: Read<()>) -> Option<String> {
    let error = deleted.err()?;
    Some(format!("{error}; run kubectl delete namespace {namespace}"))
}

/// Differs between the networks of a run, and between runs of all users.
fn unique() -> u64 {
    let now = Timestamp::now().as_nanosecond();
    u64::try_from(now & i128::from(u64::MAX >> 8)).unwrap_or_default() ^ u64::from(std::process::id())
}

/// Deletes the namespaces of tests that are older than `age`, of any user; returns their names, and what was not deleted.
pub async fn cleanup(
    reader: &Reader,
    age: Duration,
    progress: &Progress,
) -> Read<(Vec<String>, Vec<String>)> {
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for namespace in cluster::old_namespaces(reader, age).await? {
        progress.say(&format!("deleting namespace {namespace}"));
        match left(&namespace, cluster::delete_namespace(reader, &namespace).await) {
            None => deleted.push(namespace),
            Some(message) => failed.push(message),
        }
    }
    Ok((deleted, failed))
}
