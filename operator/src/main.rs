//! `multus-service-operator`: installs, configures, mends and removes Services on secondary networks.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use api::names::{OPERATOR, POD_HTTP_PORT};
use clap::Parser;
use operator::Options;
use operator::args::{Cli, Command, RunArgs};
use operator::validate::ReleaseImages;
use process::Identity;
use prometheus_client::registry::Registry;

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
