//! What an administrator does on the two-node cluster: applies objects, and runs programs beside the control plane.
//!
//! Writes: the objects, and processes that end with the process of the test.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::PathBuf;
use testbed::apiserver::process_guard::Process;
use testbed::cluster::layout::Machine;
use testbed::{cluster, command, tools};

/// Applies an object.
pub fn apply(object: &Value) -> Result<()> {
    let mut kubectl = cluster::kubectl_command(&tools::ensure(&[&tools::KUBECTL], &|_| {})?)?;
    command::run_with_input(
        kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]),
        &object.to_string(),
    )?;
    Ok(())
}

/// Starts a process in the network namespace of the control plane: it reaches the API server, nodes and pods, and its ports collide with
/// no other.
pub fn beside_the_control_plane(name: &str, command: Vec<String>, log: PathBuf) -> Result<Process> {
    let mut args = vec![format!("--net={}", Machine::Control.netns().display())];
    args.extend(command);
    Process::spawn(name.to_owned(), PathBuf::from("nsenter"), args, log)
        .with_context(|| format!("cannot start {name}"))
}
