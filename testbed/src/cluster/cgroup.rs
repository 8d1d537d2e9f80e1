//! The cluster's cgroups: how its processes are found again, and the root of its pods.
//!
//! Writes: directories `multus-service-bed` in every cgroup hierarchy. Each process that the cluster starts joins
//! `multus-service-bed/<machine>/<part>` of the tracking hierarchy before it does anything else, and its children are
//! born there; so every process in there is managed, however `up` ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{Machine, NAME};
use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";
/// The part of a machine that is the machine itself: its pid 1 and what holds its namespaces.
pub(super) const INIT: &str = "init";
const DEATH: Duration = Duration::from_mins(2);

/// The directory of a part, in the hierarchy that tracks processes.
pub(super) fn part(machine: Machine, part: &str) -> Result<PathBuf> {
    Ok(tracking()?.join(NAME).join(machine.name()).join(part))
}

/// The cgroup of a node as the kubelet names it: the root of its pods.
pub(super) fn pods_root(machine: Machine) -> String {
    format!("/{NAME}/{}", machine.name())
}

/// Creates a machine's cgroups. A machine's own processes and its pods never share one, as version 2 demands.
pub(super) fn create(machine: Machine, parts: &[&str]) -> Result<()> {
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(NAME).join(machine.name());
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        inherit_cpuset(&hierarchy, &dir)?;
    }
    delegate_v2(machine);
    for part_name in parts.iter().chain(&[INIT]) {
        fs::create_dir_all(part(machine, part_name)?)?;
    }
    Ok(())
}

/// The processes of a part and of the cgroups below it.
pub(super) fn processes(machine: Machine, name: &str) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect(&part(machine, name)?, &mut pids);
    Ok(pids)
}

/// Kills what is in the cluster's cgroups, or in one machine's, until nothing is, and removes the directories.
pub(super) fn remove(machine: Option<Machine>) -> Result<()> {
    let dirs = || -> Result<Vec<PathBuf>> {
        let below = machine.map_or_else(
            || PathBuf::from(NAME),
            |machine| Path::new(NAME).join(machine.name()),
        );
        Ok(hierarchies()?
            .into_iter()
            .map(|hierarchy| hierarchy.join(&below))
            .filter(|dir| dir.exists())
            .collect())
    };
    wait::until(DEATH, "the cluster's processes to end", || {
        for dir in dirs()? {
            let mut pids = Vec::new();
            collect(&dir, &mut pids);
            for pid in pids {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            // A process that is about to join makes this fail: it is killed in the next round.
            remove_tree(&dir);
        }
        Ok(dirs()?.is_empty())
    })
}

fn collect(dir: &Path, pids: &mut Vec<i32>) {
    let listed = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(dir) {
        collect(&child, pids);
    }
}

fn remove_tree(dir: &Path) {
    for child in children(dir) {
        remove_tree(&child);
    }
    let _ = fs::remove_dir(dir);
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Every mounted hierarchy: one on a version 2 machine, one per controller on version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(parse_hierarchies(&mounts))
}

fn parse_hierarchies(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, dir, "cgroup" | "cgroup2", ..] if dir.starts_with(ROOT) => Some(PathBuf::from(dir)),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

/// The hierarchy whose membership we go by: version 2 when there is any.
fn tracking() -> Result<PathBuf> {
    let all = hierarchies()?;
    let preferred = [
        ROOT,
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/pids",
    ];
    let found = preferred
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| all.contains(dir));
    found.context("no cgroup hierarchy is mounted below /sys/fs/cgroup")
}

/// A new version 1 cpuset accepts no process until it names CPUs and memory.
fn inherit_cpuset(hierarchy: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = match fs::read_to_string(hierarchy.join(file)) {
            Ok(value) if hierarchy.ends_with("cpuset") => value,
            _ => continue,
        };
        fs::write(dir.parent().context("a cgroup has a parent")?.join(file), &value)?;
        fs::write(dir.join(file), &value)?;
    }
    Ok(())
}

/// Hands the controllers down to a machine's pods on version 2.
fn delegate_v2(machine: Machine) {
    let root = Path::new(ROOT);
    let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) else {
        return;
    };
    let enable: Vec<_> = controllers
        .split_whitespace()
        .map(|name| format!("+{name}"))
        .collect();
    for dir in [
        root.to_owned(),
        root.join(NAME),
        root.join(NAME).join(machine.name()),
    ] {
        for controller in &enable {
            // Some controllers cannot be delegated on some machines; the kubelet names the one it misses.
            let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroup_mounts_are_hierarchies() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup2 /var/lib/x/cgroup cgroup2 rw 0 0\n";
        let want: Vec<_> = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]
            .map(PathBuf::from)
            .into();
        assert_eq!(parse_hierarchies(mounts), want);
    }

    #[test]
    fn version_2_is_one_hierarchy() {
        assert_eq!(
            parse_hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"),
            [PathBuf::from("/sys/fs/cgroup")]
        );
    }
}
