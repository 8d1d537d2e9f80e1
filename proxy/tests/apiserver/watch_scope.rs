//! Scope of the watches for slices and nodes: as narrow as the pods of the node allow, without a gap when the scope changes.

use crate::cluster::{Cluster, NODE, create, object};
use crate::serving::{outcomes, until};
use crate::testbed::Pod;
use crate::traffic::{Outcome, Server};
use anyhow::Result;
use api::NetworkRef;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// URIs of all requests for a resource so far.
fn request_uris(cluster: &Cluster, resource: &str) -> Vec<String> {
    let requests = cluster.requests().unwrap();
    let about = requests
        .iter()
        .filter(|request| request["objectRef"]["resource"] == resource);
    about
        .filter_map(|request| request["requestURI"].as_str().map(str::to_owned))
        .collect()
}

fn label(cluster: &Cluster, network: &str) -> String {
    NetworkRef::parse(network, &cluster.namespace)
        .unwrap()
        .label_value()
}

/// Returns true if the proxy currently watches the slices of exactly these networks.
fn watches_networks(cluster: &Cluster, networks: &[&str]) -> bool {
    let mut labels: Vec<_> = networks.iter().map(|network| label(cluster, network)).collect();
    labels.sort_unstable();
    let selector = format!("network+in+%28{}%29", labels.join("%2C"));
    let requests = cluster.requests().unwrap();
    // A watch is logged again when it ends.
    let begun = requests.iter().filter(|request| {
        request["objectRef"]["resource"] == "endpointslices" && request["stage"] == "ResponseStarted"
    });
    let uris: Vec<_> = begun
        .filter_map(|request| request["requestURI"].as_str())
        .collect();
    let last = uris.iter().rfind(|uri| !uri.contains("%21multusservice"));
    last.is_some_and(|uri| uri.contains(&selector))
}

/// Probes a Service until it is stopped, and collects unexpected outcomes.
struct ContinuousProbe {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<Vec<Outcome>>>>,
}

impl ContinuousProbe {
    fn start(client: &Arc<Pod>, service: &Service, want: Outcome) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, client, service) = (Arc::clone(&stop), Arc::clone(client), service.clone());
        let thread = std::thread::spawn(move || {
            let mut unexpected = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let answer = outcomes(&client, &service);
                if answer != [want.clone()] {
                    unexpected.push(answer);
                }
            }
            unexpected
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Vec<Vec<Outcome>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn only_slices_of_networks_of_local_pods_are_watched() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let (web, other) = (
        cluster.service("web", "macvlan1").await?,
        cluster.service("other", "macvlan2").await?,
    );
    cluster.labelled_slice(&web, "macvlan1", &[2]).await?;
    cluster.labelled_slice(&other, "macvlan2", &[2]).await?;
    let proxy = cluster.proxy().await?;
    until("ready without a pod", || proxy.is_ready()).await;
    assert_eq!(
        request_uris(&cluster, "endpointslices"),
        [] as [String; 0],
        "no pod is attached"
    );

    let status = cluster.status(7);
    let client = cluster.attached_pod(7, &status).await?;
    let _server = Server::start(&cluster.testbed.pod(2));
    let served = Outcome::Answered(2, client.address());
    until("served", || outcomes(&client, &web) == [served.clone()]).await;
    // The API server logs a request after it has answered it.
    until("only these networks are watched", || {
        watches_networks(&cluster, &["macvlan1"])
    })
    .await;

    // The first pod of another network.
    let client = Arc::new(client);
    let probing = ContinuousProbe::start(&client, &web, served.clone());
    let status = json!([{"name": format!("{}/macvlan2", cluster.namespace), "interface": "net1", "ips": ["10.1.0.8"]}]);
    let second = cluster.attached_pod(8, &status.to_string()).await?;
    let from_second = Outcome::Answered(2, second.address());
    until("the other network is served", || {
        outcomes(&second, &other) == [from_second.clone()]
    })
    .await;
    // The API server logs a request after it has answered it.
    until("only these networks are watched", || {
        watches_networks(&cluster, &["macvlan1", "macvlan2"])
    })
    .await;
    assert_eq!(
        probing.stop(),
        [] as [Vec<Outcome>; 0],
        "endpoints are always present"
    );
    proxy.stop().await
}

/// The archived multus-service controller and earlier releases do not label their slices, and remove an existing label.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn slices_that_gain_or_lose_their_label_are_never_missing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let status = cluster.status(7);
    let client = Arc::new(cluster.attached_pod(7, &status).await?);
    let _server = Server::start(&cluster.testbed.pod(2));
    let web = cluster.service("web", "macvlan1").await?;
    cluster.slice(&web, &[2]).await?;
    let served = Outcome::Answered(2, client.address());

    let proxy = cluster.proxy().await?;
    until("served without a label", || {
        outcomes(&client, &web) == [served.clone()]
    })
    .await;
    let probing = ContinuousProbe::start(&client, &web, served.clone());
    cluster.labelled_slice(&web, "macvlan1", &[2]).await?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(probing.stop(), [] as [Vec<Outcome>; 0], "labelled in place");
    proxy.stop().await?;

    let proxy = cluster.proxy().await?;
    until("served by a narrow watch", || {
        watches_networks(&cluster, &["macvlan1"])
    })
    .await;
    until("adopted", || proxy.is_ready()).await;
    let probing = ContinuousProbe::start(&client, &web, served.clone());
    cluster.slice(&web, &[2]).await?;
    until("all slices are watched", || {
        !watches_networks(&cluster, &["macvlan1"])
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(probing.stop(), [] as [Vec<Outcome>; 0], "the label is gone");
    proxy.stop().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn only_metadata_of_the_own_node_is_read() -> Result<()> {
    let cluster = Cluster::start().await?;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    for name in [NODE, "node-b"] {
        create(nodes.clone(), &object(json!({"metadata": {"name": name}}))).await?;
    }
    let proxy = cluster.proxy().await?;
    until("ready", || proxy.is_ready()).await;
    for name in [NODE, "node-b"] {
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.1.0.3"}]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    until("list and watch are in the audit log", || {
        request_uris(&cluster, "nodes").len() >= 2
    })
    .await;
    let requests = request_uris(&cluster, "nodes");
    let own = format!("metadata.name%3D{NODE}");
    assert!(requests.iter().all(|uri| uri.contains(&own)), "{requests:?}");
    proxy.stop().await
}
