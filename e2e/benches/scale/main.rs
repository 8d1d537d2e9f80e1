//! Benchmark of the cost of many proxies for an API server, beside as many kube-proxies in the same run: `make bench-scale`.
//!
//! A real etcd and kube-apiserver; nodes and pods are objects. Each proxy is hollow: its watches and its index, no kernel. A
//! kube-proxy is the lists and watches of its informers. Prints a table. The test
//! `proxies_cost_the_api_server_no_more_than_a_multiple_of_kube_proxies` runs a short form and holds its bounds.

#[path = "lib.rs"]
mod scale;

use clap::Parser;
use scale::Size;

/// Measures what proxies cost an API server, beside kube-proxies.
#[derive(Parser, Debug)]
struct Options {
    /// Proxies of each kind, each with a node of its own
    #[arg(long, default_value_t = 200)]
    proxies: usize,

    /// Number of labeled Services, and of ordinary ones
    #[arg(long, default_value_t = 1000)]
    services: usize,

    /// Endpoints of each Service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,

    /// Secondary networks; a node has pods on one of them
    #[arg(long, default_value_t = 5)]
    networks: usize,

    /// Endpoint changes, heartbeats and pod starts that are measured
    #[arg(long, default_value_t = 100)]
    changes: usize,

    /// Argument that cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let size = Size {
        proxies: options.proxies,
        services: options.services,
        endpoints: options.endpoints,
        networks: options.networks,
        changes: options.changes,
    };
    let table = scale::measure(&size).await?;
    println!("{table}");
    for exceeded in table.exceeded() {
        println!("beyond the bound of the short form: {exceeded}");
    }
    Ok(())
}
