//! `multus-service-operator`: installs, configures, repairs and removes Services on secondary networks.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use api::names::{OPERATOR, POD_HTTP_PORT, POD_METRICS_PORT};
use clap::Parser;
use k8s_openapi::jiff::SignedDuration;
use operator::Options;
use operator::args::{Cli, Command, RunArgs};
use operator::metrics::Metrics;
use operator::validate::ReleaseImages;
use process::Identity;
use prometheus_client::registry::Registry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => Box::pin(run(cli.run)).await,
        Some(Command::Run(args)) => Box::pin(run(*args)).await,
        Some(Command::Crd) => {
            print(&operator::crd_yaml().context("failed to format the CustomResourceDefinition as YAML")?)
        }
        Some(Command::Uninstall { node_timeout }) => Box::pin(uninstall(cli.run, node_timeout)).await,
        Some(Command::ApiReference) => print(&operator::api_reference::markdown(&api::config::crd())),
    }
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let identity = Identity {
        name: OPERATOR,
        version: operator::build::VERSION,
        commit: option_env!("MULTUS_SERVICE_COMMIT"),
        http: SocketAddr::from((Ipv6Addr::UNSPECIFIED, POD_HTTP_PORT)),
        metrics: SocketAddr::from((Ipv6Addr::UNSPECIFIED, POD_METRICS_PORT)),
    };
    let RunArgs {
        namespace,
        pod_name,
        controller_image,
        proxy_image,
        operator_version,
        operator_condition_name,
        process,
    } = args;
    let images = ReleaseImages {
        controller: controller_image,
        proxy: proxy_image,
    };
    let options = Options {
        namespace,
        version: operator_version,
        holder: pod_name,
        images,
        operator_condition: operator_condition_name.filter(|name| !name.is_empty()),
        removal: None,
    };
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    Box::pin(process::run(identity, &process, registry, |process| {
        operator::run(process, options, metrics)
    }))
    .await?;
    Ok(())
}

async fn uninstall(args: RunArgs, node_timeout: SignedDuration) -> anyhow::Result<()> {
    let client = process::connect(&args.process).await?;
    let options = Options {
        namespace: args.namespace,
        version: args.operator_version,
        holder: args.pod_name,
        images: ReleaseImages {
            controller: args.controller_image,
            proxy: args.proxy_image,
        },
        operator_condition: None,
        removal: Some(node_timeout),
    };
    let nodes = Box::pin(operator::cleanup::uninstall_command::uninstall(client, options)).await?;
    if nodes.is_empty() {
        return print("Removed all operands; no node is known to hold rules\n");
    }
    let nodes = nodes.join(", ");
    print(&format!(
        "Removed all operands; pods on these nodes may hold rules until they are restarted: {nodes}\n"
    ))
}

/// Output for `config/crd` and `docs/reference/api.md`: `make manifests`.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
