//! `cluster down`: removes every trace, found by what exists and not by what was written down.
//!
//! Writes: kills the processes in our cgroups and removes cgroups, namespaces, the link, mounts and the state
//! directory. Order matters: only when no process is left do mounts and namespaces stay away once removed.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::layout::state;
use super::lock::Lock;
use super::{cgroup, mounts, network};
use crate::tools;

/// Removes the cluster, whole or half. There may be none.
pub fn down(say: &dyn Fn(&str)) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "removing the cluster needs root; run it with sudo"
    );
    let _lock = Lock::take()?;
    remove(say)?;
    say(&format!(
        "nothing of the cluster is left; built programs and images stay in {}",
        tools::cache()?.display()
    ));
    Ok(())
}

/// [`down`] without the lock.
pub(super) fn remove(say: &dyn Fn(&str)) -> Result<()> {
    cgroup::remove(None)?;
    say("processes ended, cgroups removed");
    network::remove()?;
    for mount in mounts::below(state())? {
        mounts::unmount(&mount)?;
    }
    say("network and mounts removed");
    // Never delete through a mount.
    ensure!(
        mounts::below(state())?.is_empty(),
        "something is still mounted below {}",
        state().display()
    );
    match fs::remove_dir_all(state()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", state().display()))
        }
        _ => {
            say("data and logs removed");
            Ok(())
        }
    }
}
