//! Failures on purpose: a part that dies, a node that reboots.
//!
//! Writes: ends processes of the cluster. What started them starts them again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{Machine, Node};
use super::up::{UpOptions, up, wait_node_ready};
use super::{choices, machine, node_exec};
use crate::wait;

const RESTART: Duration = Duration::from_mins(2);

/// Ends a part with SIGKILL, as a crash would, and waits until it runs again: `etcd`, `kube-apiserver`, `node1/kubelet`,
/// `node2/crio` ... as `cluster status` names them. Its children (containers of a runtime) live on, as under systemd.
pub fn restart(part: &str) -> Result<()> {
    let (machine, name) = find(part)?;
    let old = machine::part_pid(machine, name)?
        .with_context(|| format!("{part} does not run: see `cluster status`"))?;
    // Gone already is as good.
    let _ = kill(Pid::from_raw(old), Signal::SIGKILL);
    wait::until(RESTART, &format!("{part} to run again"), || {
        Ok(machine::part_pid(machine, name)?.is_some_and(|pid| pid != old))
    })
}

/// Restarts the kubelet of `node1` or `node2` and waits until the new one says that the node is Ready.
pub fn restart_kubelet(node: &str) -> Result<()> {
    let begin = Utc::now();
    restart(&format!("{node}/kubelet"))?;
    wait_node_ready(node_named(node)?, begin)
}

/// Restarts the container runtime of `node1` or `node2`; waits until it answers and the node is Ready. Pods keep running.
pub fn restart_runtime(node: &str) -> Result<()> {
    let found = node_named(node)?;
    let runtime = choices()?.runtime(found);
    let begin = Utc::now();
    restart(&format!("{node}/{}", runtime.part()))?;
    wait::until(RESTART, &format!("{runtime} on {node} to listen"), || {
        let probe = [
            "socat",
            "-u",
            "OPEN:/dev/null",
            &format!("UNIX-CONNECT:{}", runtime.socket()),
        ];
        node_exec(node, &probe).map(|_| true)
    })?;
    wait_node_ready(found, begin)
}

/// Switches a node off and on again: every process of it dies, `/run` is empty, its disk stays. Returns when the node is
/// Ready and DNS answers; its pods come back after that, with new sandboxes and the same names.
pub fn reboot(node: &str, say: &dyn Fn(&str)) -> Result<()> {
    machine::stop(Machine::Node(node_named(node)?))?;
    up(&UpOptions::default(), say)
}

fn find(part: &str) -> Result<(Machine, &str)> {
    match part.split_once('/') {
        Some((node, name)) => Ok((Machine::Node(node_named(node)?), name)),
        None => Ok((Machine::Control, part)),
    }
}

fn node_named(node: &str) -> Result<Node> {
    Node::named(node).with_context(|| format!("there is no node {node:?}; there are node1 and node2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_as_status_names_it() {
        assert_eq!(find("etcd").unwrap(), (Machine::Control, "etcd"));
        assert_eq!(find("node2/crio").unwrap(), (Machine::ALL[2], "crio"));
        assert!(find("node3/crio").unwrap_err().to_string().contains("node3"));
    }
}
