//! Many proxies of one kind, each with connections of its own.

use super::cluster::Cluster;
use super::kube_proxy;
use super::objects::node_name;
use super::relay::Relay;
use anyhow::{Result, ensure};
use futures::future::try_join_all;
use kube::{Client, Config};
use proxy::hollow::{self, Seen};
use rules::{Node, Settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use testbed::wait;
use tokio::task::JoinHandle;

/// Proxies that start at once: a DaemonSet's roll-out of 10 % of 200.
const AT_ONCE: usize = 20;
const SYNCED: Duration = Duration::from_mins(5);

/// A kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Ours,
    Kube,
}

/// Events received by all proxies of a fleet.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    events: AtomicU64,
    synced: AtomicUsize,
}

impl Counts {
    pub(crate) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self) {
        self.synced.fetch_add(1, Ordering::Relaxed);
    }
}

/// Running proxies. They end with this value.
pub(crate) struct Fleet {
    proxy: Proxy,
    config: Config,
    relay: Relay,
    counts: Arc<Counts>,
    /// By the number of their node.
    members: Vec<Member>,
}

struct Member(JoinHandle<()>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Fleet {
    /// A proxy on every node; all have read their lists.
    pub(crate) async fn start(cluster: &Cluster, proxy: Proxy) -> Result<Self> {
        let relay = Relay::start(cluster.server.url()).await?;
        let mut config = cluster.config().await?;
        config.cluster_url = relay.url.clone();
        let mut fleet = Self {
            proxy,
            config,
            relay,
            counts: Arc::default(),
            members: Vec::new(),
        };
        let all: Vec<_> = (0..cluster.size.proxies).collect();
        for some in all.chunks(AT_ONCE) {
            let started = fleet.launch(cluster, some).await?;
            fleet.members.extend(started);
        }
        Ok(fleet)
    }

    /// Bytes that the API server has sent to them.
    pub(crate) fn bytes(&self) -> u64 {
        self.relay.received()
    }

    /// Events of their watches.
    pub(crate) fn events(&self) -> u64 {
        self.counts.events.load(Ordering::Relaxed)
    }

    /// Ends the first proxies and starts them again, all at once. Returns when all have read their lists.
    pub(crate) async fn restart(&mut self, cluster: &Cluster, count: usize) -> Result<()> {
        drop(self.members.drain(..count));
        let again: Vec<_> = (0..count).collect();
        let started = self.launch(cluster, &again).await?;
        self.members.splice(0..0, started);
        Ok(())
    }

    async fn launch(&self, cluster: &Cluster, nodes: &[usize]) -> Result<Vec<Member>> {
        let before = self.counts.synced.load(Ordering::Relaxed);
        let started = try_join_all(nodes.iter().map(|node| self.member(cluster, *node))).await?;
        wait::eventually(SYNCED, "proxies to read their lists", async || {
            let ended = started.iter().filter(|member| member.0.is_finished()).count();
            ensure!(ended == 0, "{ended} proxies ended");
            let synced = self.counts.synced.load(Ordering::Relaxed) - before;
            Ok((synced == nodes.len()).then_some(()))
        })
        .await?;
        Ok(started)
    }

    async fn member(&self, cluster: &Cluster, number: usize) -> Result<Member> {
        let (client, counts) = (Client::try_from(self.config.clone())?, Arc::clone(&self.counts));
        let node = node_name(number);
        Ok(Member(match self.proxy {
            Proxy::Ours => tokio::spawn(async move { ours(&client, node, &counts).await }),
            Proxy::Kube => {
                let informers = kube_proxy::informers(&cluster.admin, &node).await?;
                tokio::spawn(async move {
                    if let Err(error) = kube_proxy::run(client, informers, &counts).await {
                        eprintln!("kube-proxy of {node}: {error:#}");
                    }
                })
            }
        }))
    }
}

async fn ours(client: &Client, node: String, counts: &Counts) {
    let settings = Settings {
        node: Node {
            name: node,
            zone: None,
        },
        ..Settings::default()
    };
    hollow::run(client, settings, |seen| match seen {
        Seen::Synced => counts.synced(),
        Seen::Event => counts.event(),
        Seen::List => {}
    })
    .await;
}
