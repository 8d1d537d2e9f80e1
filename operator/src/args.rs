//! The command line.

use api::names::{NAMESPACE, OPERATOR};
use clap::{Args, Parser, Subcommand};
use process::ProcessArgs;

/// Installs, configures, mends and removes Services on secondary networks, as MultusServiceConfig "cluster" asks for
#[derive(Parser, Debug)]
#[command(name = OPERATOR, version)]
pub struct Cli {
    /// What to do instead of running
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Things to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator (the default)
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinition of MultusServiceConfig as YAML
    Crd,
}

/// What the operator must know before it reads the cluster.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Namespace of the operator's Lease and of everything it installs
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Name of this replica in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = OPERATOR)]
    pub pod_name: String,
    /// Controller image when the configuration names none
    #[arg(long, env = "RELATED_IMAGE_CONTROLLER", value_name = "IMAGE")]
    pub controller_image: Option<String>,
    /// Proxy image when the configuration names none
    #[arg(long, env = "RELATED_IMAGE_PROXY", value_name = "IMAGE")]
    pub proxy_image: Option<String>,
    /// What all binaries of this project have
    #[command(flatten)]
    pub process: ProcessArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_the_same_arguments() {
        let default = Cli::try_parse_from(["operator", "--proxy-image", "a"]).unwrap();
        assert_eq!(default.run.proxy_image.as_deref(), Some("a"));
        let run = Cli::try_parse_from(["operator", "run", "--proxy-image", "a"]).unwrap();
        assert!(matches!(run.command, Some(Command::Run(args)) if args.proxy_image.as_deref() == Some("a")));
    }
}
