//! Changes in a cluster and their costs.

use super::cluster::Cluster;
use super::fleet::{Fleet, Proxy};
use super::objects::{self, Place, node_name};
use super::server::{Counters, counters};
use super::table::Cost;
use anyhow::{Context as _, Result};
use api::names;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

/// Without an event for so long nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(1);

/// Every change but restarts, in the order of [`super::Row::ALL`].
pub(crate) async fn all(cluster: &mut Cluster, fleet: Option<&Fleet>, proxy: Proxy) -> Result<Vec<Cost>> {
    Ok(vec![
        endpoints(cluster, fleet, proxy).await?,
        heartbeats(cluster, fleet).await?,
        pod_starts(cluster, fleet, 0).await?,
        pod_starts(cluster, fleet, 1).await?,
    ])
}

/// Counters before a change.
struct Begun {
    at: Instant,
    server: Counters,
    events: u64,
    bytes: u64,
}

impl Begun {
    async fn now(cluster: &Cluster, fleet: Option<&Fleet>) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server: counters(&cluster.admin).await?,
            events: fleet.map_or(0, Fleet::events),
            bytes: fleet.map_or(0, Fleet::bytes),
        })
    }

    /// Returns the cost of one of `count` changes since then.
    async fn cost(self, cluster: &Cluster, fleet: Option<&Fleet>, count: usize) -> Result<Cost> {
        let took = self.at.elapsed();
        let now = Self::now(cluster, fleet).await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (events, bytes, count) = (
            (now.events - self.events) as f64,
            (now.bytes - self.bytes) as f64,
            count as f64,
        );
        Ok(Cost {
            events: events / count,
            bytes: bytes / count,
            cpu: (now.server.cpu - self.server.cpu) / count,
            server_events: (now.server.events - self.server.events) / count,
            took,
        })
    }
}

/// Waits until no event comes any more.
async fn quiet(fleet: Option<&Fleet>) {
    let (began, mut seen, mut since) = (Instant::now(), 0, Instant::now());
    while since.elapsed() < QUIET && began.elapsed() < LONGEST {
        let now = fleet.map_or(0, Fleet::events);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An endpoint becomes ready or not. With kube-proxies it is one of an ordinary Service: they do not see ours.
async fn endpoints(cluster: &mut Cluster, fleet: Option<&Fleet>, proxy: Proxy) -> Result<Cost> {
    let mut slices = std::mem::take(match proxy {
        Proxy::Ours => &mut cluster.ours,
        Proxy::Kube => &mut cluster.ordinary,
    });
    let api: Api<EndpointSlice> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    let (count, all) = (cluster.size.changes, slices.len());
    let begun = Begun::now(cluster, fleet).await?;
    for n in 0..count {
        let slice = slices.get_mut(n % all).context("no slices")?;
        let endpoint = slice.endpoints.first_mut().context("no endpoints")?;
        let conditions = endpoint.conditions.get_or_insert_default();
        conditions.ready = Some(!conditions.ready.unwrap_or(true));
        let name = slice.metadata.name.clone().unwrap_or_default();
        *slice = api.replace(&name, &PostParams::default(), slice).await?;
    }
    quiet(fleet).await;
    let cost = begun.cost(cluster, fleet, count).await?;
    *match proxy {
        Proxy::Ours => &mut cluster.ours,
        Proxy::Kube => &mut cluster.ordinary,
    } = slices;
    Ok(cost)
}

/// A kubelet reports that its node is well.
async fn heartbeats(cluster: &Cluster, fleet: Option<&Fleet>) -> Result<Cost> {
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let (count, all) = (cluster.size.changes, cluster.size.proxies);
    let begun = Begun::now(cluster, fleet).await?;
    for n in 0..count {
        let beat = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now()}]}});
        let beat = Patch::Strategic(&beat);
        nodes
            .patch_status(&node_name(n % all), &PatchParams::default(), &beat)
            .await?;
    }
    quiet(fleet).await;
    begun.cost(cluster, fleet, count).await
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339()
}

/// A pod is created on a node, Multus attaches it, it becomes ready. `beside`: how far its network is from that of the node's other pods;
/// 0 is the same.
async fn pod_starts(cluster: &Cluster, fleet: Option<&Fleet>, beside: usize) -> Result<Cost> {
    let pods: Api<Pod> = Api::namespaced(cluster.admin.clone(), &cluster.namespace);
    // No node gets a second network twice.
    let count = cluster.size.changes.min(cluster.size.proxies);
    let begun = Begun::now(cluster, fleet).await?;
    for n in 0..count {
        let (name, network) = (format!("started-{n}"), cluster.network(n + beside));
        let place = Place {
            namespace: &cluster.namespace,
            network: &network,
            node: n,
            app: "started",
        };
        let pod = serde_json::from_value(objects::new_pod(&place, &name))?;
        pods.create(&PostParams::default(), &pod).await?;
        let address = objects::address(500_000 + n);
        let attached = json!({"metadata": {"annotations": {names::NETWORK_STATUS_ANNOTATION: objects::network_status(&place, &address)}}});
        pods.patch(&name, &PatchParams::default(), &Patch::Merge(&attached))
            .await?;
        let ready = json!({"status": objects::pod_status()});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ready))
            .await?;
    }
    quiet(fleet).await;
    let cost = begun.cost(cluster, fleet, count).await?;
    for n in 0..count {
        pods.delete(&format!("started-{n}"), &DeleteParams::default().grace_period(0))
            .await?;
    }
    quiet(fleet).await;
    Ok(cost)
}

/// A tenth of the proxies ends and starts again.
pub(crate) async fn restart(cluster: &Cluster, fleet: &mut Fleet) -> Result<Cost> {
    let count = cluster.size.proxies.div_ceil(10);
    let begun = Begun::now(cluster, Some(fleet)).await?;
    fleet.restart(cluster, count).await?;
    let mut cost = begun.cost(cluster, Some(fleet), 1).await?;
    cost.events = 0.0;
    Ok(cost)
}
