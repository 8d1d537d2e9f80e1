//! Triggers reconciles: changes of the configuration, of operands, of their pods, of nodes (labels, taints, Ready), and of the
//! definitions of optional kinds.
//!
//! Writes: nothing. Only metadata is watched, but of pods and nodes, which [`crate::cache`] keeps: memory holds nothing but these and
//! the configuration's metadata. An object that cannot be decoded stops no watch.

use crate::cache;
use crate::gather::pod_selector;
use crate::kinds::{Scope, for_each_kind};
use crate::operands::SELECTOR;
use crate::reconcile::{self, Context, reconcile};
use crate::service_ranges::{NETWORK_NAME, Network};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, NETWORK_DEFINITION};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::{PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::controller::{Controller, Error};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource};
use process::error_chain;
use process::watch::{Defined, Event, Freshness, Guarded, Presence, defined, follow, follow_defined, watch};
use std::fmt::Debug;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

type Config = PartialObjectMeta<MultusServiceConfig>;

type Metadata<K> = Guarded<PartialObjectMeta<K>>;

/// Reconciles until `shutdown`; yields after each reconcile. A running reconcile is completed.
pub(crate) fn reconciles(
    client: &Client,
    namespace: &str,
    context: Context,
    shutdown: CancellationToken,
) -> impl Stream<Item = ()> {
    let context = Arc::new(context);
    let operands = || watcher::Config::default().labels(SELECTOR);
    let (store, writer) = reflector::store();
    let stop = stop_before_the_first_read(store.clone(), shutdown.clone());
    let configs = Api::<Config>::all(client.clone());
    let configs = watch(configs, only(CONFIG_NAME), Freshness::Latest, Presence::Required)
        .reflect(writer)
        .touched_objects()
        .filter_map(log_error);
    let mut controller = Controller::for_stream(configs, store);
    macro_rules! watch_kind {
        ($kind:ty, Defined) => {
            controller.reconcile_all_on(follow_if_defined(
                client,
                metadata::<$kind>(client, namespace),
                operands(),
            ))
        };
        ($kind:ty, $presence:ident) => {
            controller.watches_stream(
                touched(
                    metadata::<$kind>(client, namespace),
                    operands(),
                    Presence::$presence,
                ),
                config,
            )
        };
    }
    macro_rules! watch_kinds {
        ($($(#[$doc:meta])* $field:ident: $kind:ty, $presence:ident;)*) => {
            $(controller = watch_kind!($kind, $presence);)*
        };
    }
    for_each_kind!(watch_kinds);
    controller
        .reconcile_all_on(context.cache.pods.keep(pods(client, namespace), cache::pod))
        .reconcile_all_on(context.cache.nodes.keep(nodes(client), cache::node))
        .reconcile_all_on(defined(client, NETWORK_DEFINITION).map(drop))
        .reconcile_all_on(follow_if_defined(
            client,
            metadata::<Network>(client, namespace),
            only(NETWORK_NAME),
        ))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |_, context| async move { reconcile(&context).await },
            |_, error, _| reconcile::error_policy(error),
            Arc::clone(&context),
        )
        .map(move |result| match result {
            // Errors that `error_policy` has logged.
            Ok(_) | Err(Error::ReconcilerFailed(..)) => debug!("Reconciled"),
            // A change of the configuration that deletes it, or of an operand without a configuration.
            Err(Error::ObjectNotFound(_)) => context.configuration_gone(),
            Err(error @ (Error::QueueError(_) | Error::RunnerError(_))) => {
                warn!(error = %error_chain(&error), "Watch failed");
            }
        })
        .take_until(stop)
}

/// Resolves when `shutdown` precedes the first list of the configuration, and never afterwards. Until then no reconcile can be
/// running, and kube's `Controller` (5.0.0) does not terminate: on shutdown it stops polling its streams and still waits for the
/// first list.
async fn stop_before_the_first_read(store: Store<Config>, shutdown: CancellationToken) {
    tokio::select! {
        biased;
        Ok(()) = store.wait_until_ready() => std::future::pending().await,
        () = shutdown.cancelled() => {}
    }
}

/// Logs and drops the error of a watch.
async fn log_error<K>(event: Result<K, watcher::Error>) -> Option<Result<K, watcher::Error>> {
    event
        .inspect_err(|error| warn!(error = %error_chain(error), "Watch failed, retrying"))
        .ok()
        .map(Ok)
}

/// Returns the objects that are listed, changed or deleted. Each watch has its own backoff: the one backoff of a `Controller` for errors of
/// all its streams would add up to minutes after an outage.
fn touched<K>(
    objects: Api<Metadata<K>>,
    which: watcher::Config,
    presence: Presence,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    follow(objects, which, Freshness::Latest, presence).filter_map(async |event| match event {
        Event::Listed(object) | Event::Applied(object) => Some(Ok(object)),
        Event::Deleted(metadata) => Some(Ok(metadata.into_response_partial())),
        Event::Unreadable(unreadable) => Some(Ok(unreadable.metadata.into_response_partial())),
        Event::ListStarted | Event::ListDone => None,
    })
}

/// Watches the pods of all operands.
fn pods(client: &Client, namespace: &str) -> impl Stream<Item = Event<Pod>> + Send + use<> {
    let pods = Api::<Guarded<Pod>>::namespaced(client.clone(), namespace);
    let which = watcher::Config::default().labels(&pod_selector());
    follow(pods, which, Freshness::Latest, Presence::Required)
}

/// Watches all nodes. The list is read from the API server's watch cache.
fn nodes(client: &Client) -> impl Stream<Item = Event<Node>> + Send + use<> {
    let nodes = Api::<Guarded<Node>>::all(client.clone());
    follow(
        nodes,
        watcher::Config::default(),
        Freshness::Cached,
        Presence::Required,
    )
}

/// Watches a kind that the cluster may lack. Its absence is not an error, and no request is made until it is defined. Also yields on an empty
/// list: from then on the kind can be used.
fn follow_if_defined<K>(
    client: &Client,
    objects: Api<Metadata<K>>,
    which: watcher::Config,
) -> impl Stream<Item = ()> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let definition = format!("{}.{}", K::plural(&()), K::group(&()));
    follow_defined(client, &definition, objects, which, Freshness::Latest).filter_map(async |event| {
        match event {
            Defined::Yes(Event::ListStarted | Event::Listed(_)) => None,
            Defined::Yes(_) | Defined::No => Some(()),
        }
    })
}

fn only(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

fn metadata<K>(client: &Client, namespace: &str) -> Api<Metadata<K>>
where
    K: Resource<DynamicType = ()>,
    K::Scope: Scope<Metadata<K>>,
{
    K::Scope::api(client, namespace)
}

fn config<K>(_: K) -> [ObjectRef<Config>; 1] {
    [ObjectRef::new(CONFIG_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventRecorder;
    use crate::options::Options;
    use crate::validate::ReleaseImages;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use std::convert::Infallible;
    use std::future::pending;
    use std::time::Duration;

    /// No real API server can be silent at that very instant, so this one always is.
    #[tokio::test]
    async fn shutdown_before_the_first_list_ends_the_controller() {
        let silent = tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let client = Client::new(silent, "default");
        let options = Options {
            namespace: "default".to_owned(),
            holder: "test".to_owned(),
            version: "0.0.0".to_owned(),
            images: ReleaseImages::default(),
            operator_condition: None,
            removal: None,
        };
        let shutdown = CancellationToken::new();
        let recorder = EventRecorder::new(process::events::channel().0);
        let context = Context::new(client.clone(), options, recorder);
        let all = reconciles(&client, "default", context, shutdown.clone()).count();
        let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), all), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shutdown.cancel();
        });
        assert_eq!(ended, Ok(0));
    }
}
