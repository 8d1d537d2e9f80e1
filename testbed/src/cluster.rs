//! A real two-node Kubernetes on this machine, and how tests and people talk to it.
//!
//! Writes: everything named in [`layout`], nothing else. etcd, the control plane and two nodes with kubelet, container
//! runtime, kube-proxy and Multus run in namespaces of their own; both nodes share a data network (`data0`), one L2.
//!
//! | file | idea |
//! |---|---|
//! | `layout` | every name, address and path |
//! | `network`, `mounts`, `cgroup` | what the kernel holds for us, made and found again |
//! | `machine` | a network namespace with processes in it |
//! | `control`, `node`, `runtime`, `cni` | what runs on them, as configuration |
//! | `addons`, `image_load` | what is put on top: CoreDNS, CRDs, images |
//! | `preflight`, `options`, `lock` | what must hold before |
//! | `up`, `down`, `status`, `logs` | the commands |
//! | `restart` | failures on purpose: a part dies, a node reboots |

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::apiserver::process_guard::Process;
use crate::images::Image;
use crate::tools::{self, ToolDir};
use crate::{audit, command};
use layout::{Machine, Node};
use options::Choices;

mod addons;
mod cgroup;
mod cni;
mod control;
mod down;
mod image_load;
pub mod layout;
mod lock;
pub mod logs;
mod machine;
mod mounts;
mod network;
mod node;
mod options;
mod preflight;
mod restart;
mod runtime;
mod status;
mod up;

pub use down::down;
pub use node::static_pods;
pub use restart::{
    Paused, pause, pause_runtime, reboot, restart, restart_kubelet, restart_runtime, stop_sandbox,
};
pub use runtime::Runtime;
pub use status::{Line, status};
pub use up::{UpOptions, up};

/// Names of the nodes.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// The admin's kubeconfig file.
pub fn kubeconfig() -> Result<PathBuf> {
    let path = layout::kubeconfig();
    ensure!(path.exists(), "there is no cluster: start one with `cluster up`");
    Ok(path)
}

/// The apiserver's audit log: one JSON `audit.k8s.io/v1` Event per line, level Metadata.
pub fn audit_log() -> audit::Log {
    audit::Log::whole(control::audit_log())
}

/// Runs the cluster's kubectl as admin and returns what it printed.
pub fn kubectl(args: &[&str]) -> Result<String> {
    kubectl_with(&tools::ensure(&[&tools::KUBECTL], &|_| {})?, args)
}

/// A client as admin. It belongs to the runtime that makes it.
pub async fn client() -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig()?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Runs a command in all namespaces of a node, as a process of the node itself would, and returns what it printed.
pub fn node_exec(node: &str, args: &[&str]) -> Result<String> {
    command::output(node_command(node, args)?.stdin(Stdio::null()))
}

/// [`node_exec`], prepared for the caller to run.
pub fn node_command<S: AsRef<OsStr>>(node: &str, args: &[S]) -> Result<Command> {
    let found = Node::named(node);
    let node = found.with_context(|| format!("there is no node {node:?}; there are node1 and node2"))?;
    machine::enter(Machine::Node(node), args)
}

/// The process that holds a node's namespaces, as this machine sees it: `/proc/PID/root` is the node's file system.
pub fn node_pid(node: &str) -> Result<i32> {
    let found =
        Node::named(node).with_context(|| format!("there is no node {node:?}; there are node1 and node2"))?;
    machine::pid(Machine::Node(found))?.with_context(|| format!("{node} does not run: see `cluster status`"))
}

/// The file, in the node's file system, of the pod network namespace that has this address on some interface.
pub fn netns(node: &str, address: IpAddr) -> Result<String> {
    let find = format!(
        "for n in /run/netns/*; do nsenter --net=$n ip -oneline address | grep -qF ' {address}/' && echo $n && exit; done; \
         echo 'no network namespace has the address {address}' >&2; exit 1"
    );
    Ok(node_exec(node, &["sh", "-c", &find])?.trim().to_owned())
}

/// Starts a process in the network namespace of the control plane: it reaches the API server, nodes and pods, and its ports collide with
/// no other. It ends with this process.
pub fn beside_the_control_plane(name: &str, command: Vec<String>, log: PathBuf) -> Result<Process> {
    let mut args = vec![format!("--net={}", Machine::Control.netns().display())];
    args.extend(command);
    Process::spawn(name.to_owned(), PathBuf::from("nsenter"), args, log)
        .with_context(|| format!("cannot start {name}"))
}

/// Loads images into both nodes; those that are there are skipped.
pub fn load_images(images: &[Image], say: &dyn Fn(&str)) -> Result<()> {
    kubeconfig()?;
    let choices = choices()?;
    let runtimes: Vec<_> = choices
        .runtimes
        .iter()
        .filter_map(|runtime| runtime.tool())
        .collect();
    image_load::load(images, &choices, &tools::ensure(&runtimes, say)?, say)
}

fn choices() -> Result<Choices> {
    Choices::load()?.context("there is no cluster: start one with `cluster up`")
}

/// kubectl as admin, prepared for the caller to run.
pub fn kubectl_command(tools: &ToolDir) -> Result<Command> {
    let mut kubectl = Command::new(tools.main(&tools::KUBECTL)?);
    kubectl.arg(format!("--kubeconfig={}", kubeconfig()?.display()));
    Ok(kubectl)
}

fn kubectl_with(tools: &ToolDir, args: &[&str]) -> Result<String> {
    command::output(kubectl_command(tools)?.args(args).stdin(Stdio::null()))
}

/// One question to the apiserver, which may be stuck or gone: never takes long.
fn ask(tools: &ToolDir, args: &[&str]) -> Result<String> {
    command::output(
        kubectl_command(tools)?
            .arg("--request-timeout=5s")
            .args(args)
            .stdin(Stdio::null()),
    )
}
