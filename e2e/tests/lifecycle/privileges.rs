//! Privileges of the proxy process, from the kernel.

use crate::proxy::Proxy;
use anyhow::{Context as _, Result, ensure};
use api::names::{PROXY_HTTP_PORT, PROXY_METRICS_PORT};
use std::collections::BTreeSet;
use testbed::cluster;

/// `NET_ADMIN`, `NET_BROADCAST`, `NET_RAW`, `SYS_ADMIN`: bits 12, 11, 13 and 21.
const CAPABILITIES: u64 = 1 << 12 | 1 << 11 | 1 << 13 | 1 << 21;

/// Mounts that are not read-only: kernel interfaces, and what the kubelet gives to every container. None takes a file on a disk but
/// the message of its end.
const WRITABLE: [&str; 8] = [
    "/proc",
    "/dev",
    "/sys",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/run/.containerenv",
    "/run/secrets",
];

/// Directories of the node, read-only themselves. What is mounted below them, other containers' file systems among it, comes along as
/// it is: a read-only mount is not recursive where mounts are to follow the node's. Who holds a runtime's socket is root anyway.
const OF_THE_NODE: [&str; 3] = ["/run/netns", "/run/containerd", "/run/crio"];

pub(crate) fn are_as_documented(proxy: &Proxy) -> Result<()> {
    let status = proxy.proc("status")?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim)
            .with_context(|| format!("no {key} in {status}"))
    };
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let held = u64::from_str_radix(field(set)?, 16)?;
        ensure!(held == CAPABILITIES, "{set} {held:#x}, not {CAPABILITIES:#x}");
    }
    ensure!(
        field("CapInh:")?.trim_start_matches('0').is_empty()
            && field("CapAmb:")?.trim_start_matches('0').is_empty()
    );
    ensure!(
        field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2",
        "{status}"
    );
    Ok(())
}

/// The disk cannot fill up on it, nor it a disk: nothing it can write is on one, and no file is open for writing.
pub(crate) fn nothing_is_written_to_a_disk(proxy: &Proxy) -> Result<()> {
    let mounts = proxy.proc("mountinfo")?;
    let writable = mounts.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let writes = fields.get(5)?.split(',').any(|option| option == "rw");
        writes.then(|| fields[4])
    });
    let below = |at: &str, known: &[&str]| known.iter().any(|known| at.starts_with(&format!("{known}/")));
    let is_known = |at: &&str| WRITABLE.contains(at) || below(at, &WRITABLE) || below(at, &OF_THE_NODE);
    let unexpected: BTreeSet<_> = writable.filter(|at| !is_known(at)).collect();
    ensure!(unexpected.is_empty(), "writable: {unexpected:?}\n{mounts}");
    let pid = proxy.pid()?;
    let open = format!(
        "for f in /proc/{pid}/fd/*; do t=$(readlink $f); grep -q '^flags:.*[12]$' /proc/{pid}/fdinfo/${{f##*/}} && echo $t; done; true"
    );
    let open = cluster::node_exec(&proxy.node, &["sh", "-c", &open])?;
    let files: Vec<_> = open
        .lines()
        .filter(|target| target.starts_with('/') && !target.starts_with("/dev/"))
        .collect();
    ensure!(files.is_empty(), "open for writing: {files:?}");
    Ok(())
}

/// Its probes, on the loopback address alone, and its metrics, on one address of the node.
pub(crate) fn it_listens_for_probes_and_metrics_alone(proxy: &Proxy) -> Result<()> {
    let pid = format!("pid={},", proxy.pid()?);
    let listening = cluster::node_exec(&proxy.node, &["ss", "-Hlntup"])?;
    let ours: Vec<_> = listening.lines().filter(|line| line.contains(&pid)).collect();
    ensure!(
        ours.len() == 2
            && ours.iter().all(|line| line.starts_with("tcp"))
            && ours
                .iter()
                .any(|line| line.contains(&format!(" 127.0.0.1:{PROXY_HTTP_PORT} ")))
            && ours
                .iter()
                .any(|line| line.contains(&format!(" {}:{PROXY_METRICS_PORT} ", proxy.host_ip))),
        "it listens at {ours:#?} of\n{listening}"
    );
    Ok(())
}
