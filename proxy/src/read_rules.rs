//! Reads the rules and routes in the network namespace of a pod, for `multus-service-proxy rules`.
//!
//! Writes nothing. It reads the kernel, not the memory of the process that serves, so that it also shows what another process changed.

use crate::backend::{self, detect};
use crate::container_runtime::{self, SandboxSource};
use crate::netlink::Netlink;
use crate::netns::routes::{self, Routes};
use crate::netns::{self, Netns, memory};
use api::ObjectName;
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::{AppliedRules, KernelState};
use std::time::Duration;

/// Longest time in the namespace.
const PATIENCE: Duration = Duration::from_secs(10);

/// Error of a read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod's sandbox cannot be looked up: it may run on another node.
    #[error("failed to look up the sandbox of the pod")]
    Sandbox(#[from] container_runtime::Error),
    /// Its network namespace cannot be entered.
    #[error("failed to enter the network namespace of the pod")]
    Netns(#[from] netns::Error),
    /// Its rules cannot be read.
    #[error("failed to read the rules")]
    Backend(#[from] backend::Error),
    /// Its routes cannot be read.
    #[error("failed to read the routes")]
    Routes(#[from] routes::Error),
    /// The kernel does not answer.
    #[error("the kernel did not answer within 10 s")]
    TimedOut,
}

/// Reads what a pod has; `uid` is its own, `pod` its name.
pub async fn read_rules(
    sandboxes: &dyn SandboxSource,
    uid: &str,
    pod: &ObjectName,
) -> Result<AppliedRules, Error> {
    let sandbox = sandboxes.of_pod(uid, pod).await?;
    let done = Netns::open(&sandbox.netns)?.spawn(read)?;
    let done = tokio::time::timeout(PATIENCE, done).await;
    let done = done.map_err(|_| Error::TimedOut)?;
    done.map_err(|_| Error::TimedOut)??
}

/// Reads the calling thread's namespace. While a backend replaces another one, both have the same rules.
fn read() -> Result<AppliedRules, Error> {
    let (mut names, mut state) = (Vec::new(), KernelState::default());
    for backend in detect::all() {
        if backend.is_present()? {
            if names.is_empty() {
                state = memory::uncharged(|| backend.dump())?;
            }
            names.push(backend.name().to_owned());
        }
    }
    let mut netlink = Netlink::open(NETLINK_ROUTE).map_err(routes::Error::Read)?;
    let routes = Routes::read(&mut netlink)?;
    Ok(AppliedRules::new(names, &state, routes.applied()))
}
