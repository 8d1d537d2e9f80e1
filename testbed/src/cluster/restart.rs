//! Failures on purpose: a part that dies, a node that reboots.
//!
//! Writes: ends processes of the cluster. What started them starts them again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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

/// A part stopped by [`pause`]. It continues when this is dropped.
#[derive(Debug)]
#[must_use = "the part goes on when this is dropped"]
pub struct Paused(Pid);

impl Drop for Paused {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Stops a part without ending it: it keeps its sockets and does not respond. Parts are named as for [`restart`].
pub fn pause(part: &str) -> Result<Paused> {
    let (machine, name) = find(part)?;
    let pid = machine::part_pid(machine, name)?
        .with_context(|| format!("{part} does not run: see `cluster status`"))?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    Ok(Paused(Pid::from_raw(pid)))
}

/// [`pause`] for the container runtime of `node1` or `node2`, whichever it is.
pub fn pause_runtime(node: &str) -> Result<Paused> {
    let runtime = choices()?.runtime(node_named(node)?);
    pause(&format!("{node}/{}", runtime.part()))
}

/// Has the container runtime of a node stop a pod sandbox; the kubelet makes another one for the pod. The call is
/// `StopPodSandbox` of the CRI, by curl: no client program serves all runtimes.
pub fn stop_sandbox(node: &str, id: &str) -> Result<()> {
    let socket = choices()?.runtime(node_named(node)?).socket();
    ensure!(
        id.len() < 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{id:?} is no sandbox"
    );
    // A gRPC frame (not compressed, 4 bytes of length), and in it field 1 of the message, a string.
    let (outer, inner) = (id.len() + 2, id.len());
    let call = format!(
        "printf '\\000\\000\\000\\000\\{outer:03o}\\012\\{inner:03o}{id}' | curl -sS --max-time 60 --http2-prior-knowledge \
         --unix-socket {socket} -H 'content-type: application/grpc' -H 'te: trailers' --data-binary @- -o /dev/null -D - \
         http://localhost/runtime.v1.RuntimeService/StopPodSandbox"
    );
    let answer = node_exec(node, &["sh", "-c", &call])?;
    ensure!(
        answer.contains("grpc-status: 0"),
        "the runtime of {node} did not stop sandbox {id}: {answer}"
    );
    Ok(())
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
