//! `multus-service-operator`: installs, configures, mends and removes Services on secondary networks.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use api::names::{NAMESPACE, OPERATOR, POD_HTTP_PORT};
use clap::{Args, Parser, Subcommand};
use operator::Options;
use operator::validate::ReleaseImages;
use process::{Identity, ProcessArgs};
use prometheus_client::registry::Registry;

/// Installs, configures, mends and removes Services on secondary networks, as MultusServiceConfig "cluster" asks for
#[derive(Parser)]
#[command(name = OPERATOR, version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator (the default)
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinition of MultusServiceConfig as YAML
    Crd,
}

#[derive(Args)]
struct RunArgs {
    /// Namespace of the operator's Lease and of everything it installs
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    namespace: String,
    /// Name of this replica in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = OPERATOR)]
    pod_name: String,
    /// Controller image when the configuration names none
    #[arg(long, env = "RELATED_IMAGE_CONTROLLER", value_name = "IMAGE")]
    controller_image: Option<String>,
    /// Proxy image when the configuration names none
    #[arg(long, env = "RELATED_IMAGE_PROXY", value_name = "IMAGE")]
    proxy_image: Option<String>,
    #[command(flatten)]
    process: ProcessArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => run(cli.run).await,
        Some(Command::Run(args)) => run(*args).await,
        Some(Command::Crd) => crd(),
    }
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let http = SocketAddr::from((Ipv4Addr::UNSPECIFIED, POD_HTTP_PORT));
    let identity = Identity {
        name: OPERATOR,
        version: env!("CARGO_PKG_VERSION"),
        http,
    };
    let RunArgs {
        namespace,
        pod_name,
        controller_image,
        proxy_image,
        process,
    } = args;
    let images = ReleaseImages {
        controller: controller_image,
        proxy: proxy_image,
    };
    let options = Options {
        namespace,
        holder: pod_name,
        images,
    };
    process::run(identity, &process, Registry::default(), |process| {
        operator::run(process, options)
    })
    .await?;
    Ok(())
}

/// `config/crd` holds this text: `make manifests`.
fn crd() -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = operator::crd_yaml().context("the CustomResourceDefinition cannot be written as YAML")?;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
