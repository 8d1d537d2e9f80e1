//! The command line.

use crate::build::VERSION;
use api::names::{NAMESPACE, OPERATOR};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;
use process::ProcessArgs;

/// Upper limit of `--node-timeout`.
const MAX_NODE_TIMEOUT: SignedDuration = SignedDuration::from_hours(24);

/// Installs, configures, repairs and removes Services on secondary networks, as specified by MultusServiceConfig "cluster"
#[derive(Parser, Debug)]
#[command(name = OPERATOR, version)]
pub struct Cli {
    /// Command to run instead of the operator
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of the operator
    #[command(flatten)]
    pub run: RunArgs,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator (the default)
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinition of MultusServiceConfig as YAML
    Crd,
    /// Print the reference of MultusServiceConfig as Markdown
    ApiReference,
    /// Remove all operands when the operator is no longer in the cluster: delete MultusServiceConfig "cluster", clean up nodes, delete
    /// the operands. Needs cluster-admin
    Uninstall {
        /// Time limit for cleanup on nodes; nodes that exceed it are skipped and listed; 0s skips all nodes
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
        node_timeout: SignedDuration,
    },
}

/// Settings from the command line and the environment.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Namespace of the operator's Lease and of everything it installs
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// Name of this replica in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = OPERATOR)]
    pub pod_name: String,
    /// Controller image, unless MultusServiceConfig specifies one
    #[arg(long, env = "RELATED_IMAGE_CONTROLLER", value_name = "IMAGE")]
    pub controller_image: Option<String>,
    /// Proxy image, unless MultusServiceConfig specifies one
    #[arg(long, env = "RELATED_IMAGE_PROXY", value_name = "IMAGE")]
    pub proxy_image: Option<String>,
    /// Version of the release that the images belong to; reported for the operator and its operands
    #[arg(long, env = "OPERATOR_VERSION", value_name = "VERSION", default_value = VERSION, value_parser = version)]
    pub operator_version: String,
    /// OperatorCondition in which to report to the Operator Lifecycle Manager whether it may upgrade the operator; set by OLM v0
    #[arg(long, env = "OPERATOR_CONDITION_NAME", value_name = "NAME")]
    pub operator_condition_name: Option<String>,
    /// Arguments of all binaries of this project
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Parses "10m" or "90s", kubectl's format of durations.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let duration = text
        .parse()
        .map_err(|error| format!("{error}; write 10m or 90s"))?;
    if (SignedDuration::ZERO..=MAX_NODE_TIMEOUT).contains(&duration) {
        Ok(duration)
    } else {
        Err("from 0s to 24h".to_owned())
    }
}

/// Parses a version that is a valid label value.
fn version(text: &str) -> Result<String, String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_good = text.len() <= 63
        && text.chars().all(is_inner)
        && is_outer(text.chars().next())
        && is_outer(text.chars().last());
    if is_good {
        Ok(text.to_owned())
    } else {
        Err("a label value: at most 63 letters, digits, '-', '_' and '.', such as 1.2.3".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn version_must_be_a_valid_label_value() {
        let of = |version: &str| Cli::try_parse_from(["operator", "--operator-version", version]);
        assert_eq!(of("1.2.3-rc.1").unwrap().run.operator_version, "1.2.3-rc.1");
        for bad in ["", "1.2.3+build", "-1", &"1".repeat(64)] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn node_timeout_is_bounded() {
        let of = |timeout: &str| {
            let timeout = format!("--node-timeout={timeout}");
            Cli::try_parse_from(["operator", "uninstall", &timeout])
        };
        for good in ["0s", "10m", "24h"] {
            assert!(of(good).is_ok(), "{good}");
        }
        for bad in ["-1s", "25h", "9223372036854775807s", "soon"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_is_the_default_command_with_the_same_arguments() {
        let default = Cli::try_parse_from(["operator", "--proxy-image", "a"]).unwrap();
        assert_eq!(default.run.proxy_image.as_deref(), Some("a"));
        let run = Cli::try_parse_from(["operator", "run", "--proxy-image", "a"]).unwrap();
        assert!(matches!(run.command, Some(Command::Run(args)) if args.proxy_image.as_deref() == Some("a")));
    }
}
