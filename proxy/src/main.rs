//! Binary of the proxy; the code is in the library.

use anyhow::Context;
use api::ObjectName;
use api::names::{PROXY, PROXY_HTTP_PORT};
use clap::Parser;
use process::traces;
use prometheus_client::registry::Registry;
use proxy::args::{Args, Command};
use proxy::cleanup::cleanup;
use proxy::container_runtime::cri::Cri;
use proxy::debug_state;
use proxy::metrics::Metrics;
use proxy::read_rules::read_rules;
use proxy::serve::{Serving, cleanup_and_wait, serve};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

fn identity(args: &Args) -> process::Identity {
    process::Identity {
        name: PROXY,
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("MULTUS_SERVICE_COMMIT"),
        http: SocketAddr::from((Ipv4Addr::LOCALHOST, PROXY_HTTP_PORT)),
        metrics: args.metrics_address(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = args.container_runtime_endpoint.as_deref();
    match args.command.clone() {
        Some(Command::Rules { pod, uid }) => print_rules(runtime, &pod, &uid).await,
        Some(Command::Cleanup { wait: false }) => clean_once(&args, runtime).await,
        Some(Command::Cleanup { wait: true }) => {
            let work = |process| cleanup_and_wait(process, runtime);
            Ok(process::run(identity(&args), &args.process, Registry::default(), work).await?)
        }
        None => {
            let node_name = args.node_name.clone().context(
                "--node-name (or $NODE_NAME) is required: set it to the name of the Node whose pods are served",
            )?;
            let mut registry = Registry::default();
            let metrics = Metrics::new(&mut registry);
            let (routes, requests) = debug_state::endpoint();
            let source = traces::Source {
                name: PROXY,
                version: env!("CARGO_PKG_VERSION"),
                instance: args.pod_name.as_deref().unwrap_or(&node_name),
                node: Some(&node_name),
            };
            let (traces, spans) = traces::start(&args.traces, source);
            let options = Serving {
                settings: args.settings(&node_name),
                own_pod: args.own_pod(),
                runtime,
                backend: args.backend,
                host_networks: args.host_networks.clone(),
                legacy_namespaces: args.legacy_namespaces(),
                traces,
            };
            let work = |process| spans.run_beside(serve(process, options, metrics, requests));
            let run = process::run_with_routes(identity(&args), &args.process, registry, routes, work);
            Ok(Box::pin(run).await?)
        }
    }
}

/// Another process of the proxy's container: it knows nothing of the one that serves.
async fn print_rules(runtime: Option<&str>, pod: &ObjectName, uid: &str) -> anyhow::Result<()> {
    let rules = read_rules(&Cri::connect(runtime).await?, uid, pod).await?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&rules)?)?;
    Ok(())
}

async fn clean_once(args: &Args, runtime: Option<&str>) -> anyhow::Result<()> {
    let _telemetry = process::logs::init(PROXY, &args.process)?;
    let outcome = cleanup(&Cri::connect(runtime).await?).await?;
    anyhow::ensure!(
        outcome.failed == 0,
        "failed to clean up {} of {} network namespaces; see the log",
        outcome.failed,
        outcome.failed + outcome.clean
    );
    Ok(())
}
