//! Costs of watches, shared by the benchmark and by the test that bounds them.

mod bounds;
mod changes;
mod cluster;
mod fleet;
mod kube_proxy;
mod objects;
mod relay;
mod server;
mod table;

use anyhow::Result;
use cluster::Cluster;
use fleet::{Fleet, Proxy};
use table::{Costs, Row};

pub(crate) use table::Table;

/// Size of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Proxies of each kind; a node for each.
    pub(crate) proxies: usize,
    /// Number of labeled Services, and of ordinary ones.
    pub(crate) services: usize,
    /// Endpoints of each Service.
    pub(crate) endpoints: usize,
    /// Secondary networks. A node has pods on one of them.
    pub(crate) networks: usize,
    /// Changes of each kind that are measured.
    pub(crate) changes: usize,
}

/// Measures the changes without watchers, then with each kind of proxy, on one API server.
pub(crate) async fn measure(size: &Size) -> Result<Table> {
    let mut cluster = Cluster::start(size).await?;
    let baseline = changes::all(&mut cluster, None, Proxy::Ours).await?;
    let mut measured = Vec::new();
    for proxy in [Proxy::Kube, Proxy::Ours] {
        let mut fleet = Fleet::start(&cluster, proxy).await?;
        let mut costs = changes::all(&mut cluster, Some(&fleet), proxy).await?;
        for (cost, baseline) in costs.iter_mut().zip(&baseline) {
            cost.without(baseline);
        }
        costs.push(changes::restart(&cluster, &mut fleet).await?);
        measured.push(costs);
    }
    let ours = measured.pop().unwrap_or_default();
    let kube = measured.pop().unwrap_or_default();
    let rows = Row::ALL.into_iter().zip(ours.into_iter().zip(kube));
    Ok(Table {
        size: size.clone(),
        rows: rows
            .map(|(row, (ours, kube))| (row, Costs { ours, kube }))
            .collect(),
    })
}
