//! Mounts below a directory.
//!
//! Writes: nothing but [`unmount`]. Reads the kernel's list, so that it also finds what a killed `up` mounted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

/// The mount points below `dir`, the deepest first.
pub(super) fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(parse(&table, dir))
}

/// Unmounts, even when something still uses it.
pub(super) fn unmount(path: &Path) -> Result<()> {
    umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", path.display()))
}

fn parse(table: &str, dir: &Path) -> Vec<PathBuf> {
    // proc_pid_mountinfo(5): the fifth field is the mount point. Our own have no character that is escaped there.
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let mut found: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    found.sort();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_comes_first_and_others_not_at_all() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:4 net:[1] /var/lib/bed/netns/a rw - nsfs nsfs rw\n\
                     3 1 0:5 / /var/lib/bed rw - tmpfs tmpfs rw\n4 1 0:6 / /var/lib/bed2 rw - tmpfs tmpfs rw\n";
        let want = ["/var/lib/bed/netns/a", "/var/lib/bed"].map(PathBuf::from);
        assert_eq!(parse(table, Path::new("/var/lib/bed")), want);
    }
}
