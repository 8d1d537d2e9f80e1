//! `multus-service-controller`: see the crate `controller`.

use api::{NamespaceIsolation, names};
use clap::{ArgAction, Parser};
use controller::metrics::Metrics;
use controller::settings::Settings;
use ipnet::IpNet;
use process::lease::LeaseOptions;
use process::traces::{self, TraceArgs};
use process::{Identity, ProcessArgs};
use prometheus_client::registry::Registry;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Publishes the addresses that pods have on a secondary network in EndpointSlices, for every Service with the label
/// service.kubernetes.io/service-proxy-name=multus-proxy and the annotation k8s.v1.cni.cncf.io/service-network.
#[derive(Parser, Debug)]
#[command(name = names::CONTROLLER, version, max_term_width = 120)]
struct Args {
    #[command(flatten)]
    process: ProcessArgs,

    #[command(flatten)]
    traces: TraceArgs,

    /// Namespace of the Lease for leader election
    #[arg(long, env = "POD_NAMESPACE", default_value = names::NAMESPACE, value_name = "NAME")]
    namespace: String,

    /// Identity of this replica in the Lease and in Events: the pod's name [default: the host's name]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,

    /// Elect a leader before writing; set to false only if there is never a second replica
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,

    /// Maximum number of endpoints in one EndpointSlice
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    max_endpoints_per_slice: u16,

    /// Namespaces whose networks every Service may use, as globalNamespaces of Multus
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "default",
        value_name = "NAME,..."
    )]
    global_namespaces: Vec<String>,

    /// Restrict Services to networks of their own namespace and of the global namespaces
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    network_namespace_isolation: bool,

    /// Service CIDRs, in addition to the cluster's ServiceCIDR objects: an address in them is never an endpoint
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    service_cidrs: Vec<IpNet>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let identity = Identity {
        name: names::CONTROLLER,
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("MULTUS_SERVICE_COMMIT"),
        http: SocketAddr::from((Ipv6Addr::UNSPECIFIED, names::POD_HTTP_PORT)),
        metrics: SocketAddr::from((Ipv6Addr::UNSPECIFIED, names::POD_METRICS_PORT)),
    };
    let settings = Settings {
        max_endpoints_per_slice: args.max_endpoints_per_slice.into(),
        isolation: if args.network_namespace_isolation {
            NamespaceIsolation::isolated(args.global_namespaces)
        } else {
            NamespaceIsolation::Open
        },
        service_cidrs: args.service_cidrs,
    };
    let pod_name = args.pod_name.map_or_else(host_name, Ok)?;
    let lease = args.leader_elect.then(|| LeaseOptions {
        namespace: args.namespace,
        name: names::CONTROLLER.to_owned(),
        holder: pod_name.clone(),
        duration: Duration::from_secs(15),
        renew_before: Duration::from_secs(5),
    });
    let source = traces::Source {
        name: names::CONTROLLER,
        version: identity.version,
        instance: &pod_name,
        node: None,
    };
    let (traces, spans) = traces::start(&args.traces, source);
    let work = |process| async {
        let run = controller::run(process, settings, metrics, traces, &pod_name, lease);
        spans.run_beside(Box::pin(run)).await
    };
    Ok(Box::pin(process::run(identity, &args.process, registry, work)).await?)
}

/// In a pod this is the pod's name.
fn host_name() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned())
}
