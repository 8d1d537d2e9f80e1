//! `cluster`: a real two-node Kubernetes on this machine, up and down in seconds.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use testbed::cluster::{self, Runtime, UpOptions, layout, logs};
use testbed::images::Image;
use testbed::{command, tools};

/// A real two-node Kubernetes on this machine: etcd, control plane, CoreDNS, and two nodes with kubelet, container
/// runtime, kube-proxy and Multus, each in namespaces of its own. Needs root.
///
/// Start with `cluster up`; then `cluster kubectl -- get pods -A`; at the end `cluster down`.
#[derive(Parser)]
#[command(name = "cluster")]
struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the cluster, or check and repair the one that is there
    ///
    /// The first time this builds the Kubernetes programs, which takes minutes; after that it takes seconds.
    Up {
        /// Container runtime per node: containerd1 (1.6, Debian's), containerd2 or crio
        #[arg(long, value_name = "node1=RUNTIME,node2=RUNTIME", value_parser = parse_runtimes)]
        runtime: Option<Runtimes>,
        /// Remove the cluster with its data first
        #[arg(long)]
        fresh: bool,
    },
    /// Build the programs of all runtimes now, so that nothing later needs a compiler or a network
    Build,
    /// Stop the cluster and remove every trace of it; also one that crashed
    Down,
    /// One line per part; fails unless all are well
    Status,
    /// Run kubectl as admin
    Kubectl {
        /// kubectl's arguments, after `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        args: Vec<String>,
    },
    /// Show the log of a part; without a name, list them
    Logs {
        /// Such as kube-apiserver or node1/kubelet
        part: Option<String>,
        /// Show this many lines
        #[arg(short = 'n', long, default_value = "200")]
        lines: String,
        /// Keep showing what is added
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the path of the admin's kubeconfig
    Kubeconfig,
    /// End a part as a crash would, and wait until it runs again
    Restart {
        /// As `cluster status` names it: kube-apiserver, node1/kubelet, node2/crio ...
        part: String,
    },
    /// Switch a node off and on again: its processes die, its disk stays
    Reboot {
        /// node1 or node2
        node: String,
    },
    /// Container images on the nodes
    #[command(subcommand)]
    Images(Images),
    /// Run a command inside a node, in all its namespaces
    Exec {
        /// node1 or node2
        node: String,
        /// The command, after `--`
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            required = true,
            value_name = "COMMAND"
        )]
        args: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Images {
    /// Load images from docker-archives into both nodes
    Load {
        /// Archives, as `buildah push NAME docker-archive:FILE:NAME` writes them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// One per node; clap would read a bare array as several values.
#[derive(Clone, Copy)]
struct Runtimes([Runtime; 2]);

fn main() -> ExitCode {
    run(Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(args: Args) -> Result<ExitCode> {
    let say = |line: &str| eprintln!("{line}");
    match args.command {
        Action::Up { runtime, fresh } => {
            cluster::up(
                &UpOptions {
                    runtimes: runtime.map(|Runtimes(both)| both),
                    fresh,
                },
                &say,
            )?;
            let kubectl = tools::ensure(&[&tools::KUBECTL], &say)?;
            eprintln!(
                "The cluster is up. To use it:\n  export KUBECONFIG={} PATH=$PATH:{}",
                layout::kubeconfig().display(),
                kubectl.dir(&tools::KUBECTL)?.display()
            );
        }
        Action::Build => drop(tools::ensure(&tools::ALL, &say)?),
        Action::Down => cluster::down(&say)?,
        Action::Status => return status(),
        Action::Kubectl { args } => {
            let tools = tools::ensure(&[&tools::KUBECTL], &say)?;
            return Err(replace_with(cluster::kubectl_command(&tools)?.args(args)));
        }
        Action::Logs { part: None, .. } => {
            for log in logs::all()? {
                writeln!(io::stdout(), "{:<32} {}", log.name, log.path.display())?;
            }
        }
        Action::Logs {
            part: Some(part),
            lines,
            follow,
        } => {
            let mut tail = Command::new("tail");
            tail.args(["-n", &lines])
                .args(follow.then_some("-F"))
                .arg(logs::find(&part)?.path);
            return Err(replace_with(&mut tail));
        }
        Action::Kubeconfig => writeln!(io::stdout(), "{}", cluster::kubeconfig()?.display())?,
        Action::Restart { part } => cluster::restart(&part)?,
        Action::Reboot { node } => cluster::reboot(&node, &say)?,
        Action::Images(Images::Load { files }) => cluster::load_images(&read_names(files)?, &say)?,
        Action::Exec { node, args } => return Err(replace_with(&mut cluster::node_command(&node, &args)?)),
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> Result<ExitCode> {
    let lines = cluster::status()?;
    if lines.is_empty() {
        bail!("there is no cluster: start one with `cluster up`");
    }
    for line in &lines {
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(if lines.iter().all(|line| line.good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Becomes the command; returns only the reason why that failed.
fn replace_with(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot run {}", command.get_program().display()))
}

fn parse_runtimes(text: &str) -> Result<Runtimes, String> {
    const FORM: &str = "write it as node1=RUNTIME,node2=RUNTIME";
    let mut runtimes = [None; 2];
    for choice in text.split(',') {
        let (node, runtime) = choice.split_once('=').ok_or(FORM)?;
        let node = layout::Node::named(node).ok_or_else(|| format!("there is no node {node:?}; {FORM}"))?;
        runtimes[node.index()] = Some(runtime.parse::<Runtime>()?);
    }
    match runtimes {
        [Some(one), Some(two)] => Ok(Runtimes([one, two])),
        _ => Err(format!("a node is missing; {FORM}")),
    }
}

/// The name an archive was made with, from its `manifest.json`.
fn read_names(files: Vec<PathBuf>) -> Result<Vec<Image>> {
    let name = |file: &PathBuf| -> Result<String> {
        let manifest = command::run("tar", &["-xOf", &file.display().to_string(), "manifest.json"])?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let name = manifest[0]["RepoTags"][0]
            .as_str()
            .context("it has no RepoTags")?;
        Ok(name.to_owned())
    };
    files
        .into_iter()
        .map(|archive| {
            let name =
                name(&archive).with_context(|| format!("{} is not a docker-archive", archive.display()))?;
            Ok(Image { name, archive })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn both_nodes_must_be_named() {
        assert!(
            parse_runtimes("node2=crio,node1=containerd2")
                .is_ok_and(|Runtimes(both)| both == [Runtime::Containerd2, Runtime::Crio])
        );
        for bad in [
            "node1=crio",
            "crio",
            "node3=crio,node1=crio",
            "node1=docker,node2=crio",
        ] {
            assert!(parse_runtimes(bad).is_err(), "{bad}");
        }
    }
}
