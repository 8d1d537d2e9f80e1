//! Requirements of the machine, checked before any change; each missing one is reported with its remedy.
//!
//! Writes: loads the kernel module br_netfilter when it is missing, after saying so. Kernel features are tried in
//! namespaces that vanish with the attempt. Ports need no check: every program of the cluster listens in a network
//! namespace of the test bed.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use ipnet::IpNet;
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::layout::{HOST_LINK, NODE_NETWORK, NODE_NETWORK_V6};
use crate::{command, tools};

const GIB: u64 = 1 << 30;
const MEMORY: u64 = 2 * GIB;
const DISK: u64 = 5 * GIB;
/// Go's module and build caches beside the tools themselves.
const DISK_TO_BUILD: u64 = 12 * GIB;

/// (what, a shell command that fails without it, what to do).
const KERNEL_FEATURES: [(&str, &str, &str); 6] = [
    (
        "network namespaces",
        "true",
        "the kernel needs CONFIG_NET_NS, and this user CAP_SYS_ADMIN",
    ),
    (
        "veth links",
        "ip link add probe0 type veth peer name probe1",
        "the kernel needs CONFIG_VETH (module veth)",
    ),
    (
        "bridges",
        "ip link add probe0 type bridge",
        "the kernel needs CONFIG_BRIDGE (module bridge)",
    ),
    (
        "macvlan links",
        "ip link add probe0 type bridge && ip link add link probe0 name probe1 type macvlan mode bridge",
        "the kernel needs CONFIG_MACVLAN (module macvlan)",
    ),
    (
        "overlay mounts",
        "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w && mount -t overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w o /etc",
        "the kernel needs CONFIG_OVERLAY_FS (module overlay)",
    ),
    (
        "NAT",
        "iptables -t nat -A POSTROUTING -m comment --comment x -j MASQUERADE",
        "the kernel needs CONFIG_NF_NAT and CONFIG_NFT_COMPAT (modules nf_nat, nft_compat)",
    ),
];

/// Checks that need no package: root, memory, disk, cgroups.
pub(super) fn machine(state: &Path, must_build: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a cluster needs root: it makes network namespaces, mounts and cgroups; run it with sudo");
    }
    let mut problems = Vec::new();
    if let Some(available) = available_memory()
        && available < MEMORY
    {
        problems.push(lack(
            "memory",
            available,
            MEMORY,
            "stop something, or use a bigger machine",
        ));
    }
    let cache = tools::cache()?;
    let disks = [
        (state, DISK),
        (cache.as_path(), if must_build { DISK_TO_BUILD } else { 0 }),
    ];
    for (dir, needed) in disks {
        let free = free_disk(dir)?;
        if free < needed {
            let what = format!("disk space for {}", dir.display());
            problems.push(lack(
                &what,
                free,
                needed,
                "free some; $MULTUS_SERVICE_CACHE moves the cache elsewhere",
            ));
        }
    }
    if !Path::new("/sys/fs/cgroup").join("cgroup.procs").exists()
        && !Path::new("/sys/fs/cgroup/pids").exists()
    {
        problems.push("no cgroups are mounted at /sys/fs/cgroup; mount cgroup2 there".to_owned());
    }
    report(&problems)
}

/// Checks that need programs of packages: kernel features and addresses. `ours` is whether the cluster's own
/// network is there already.
pub(super) fn kernel_and_network(ours: bool, say: &dyn Fn(&str)) -> Result<()> {
    let mut problems = Vec::new();
    for (what, script, remedy) in KERNEL_FEATURES {
        if let Err(error) = command::run("unshare", &["--net", "--mount", "sh", "-c", script]) {
            problems.push(format!("{what} do not work: {remedy} ({error:#})"));
        }
    }
    if let Err(error) = load_bridge_netfilter(say) {
        problems.push(format!(
            "the kernel lacks br_netfilter, kube-proxy cannot serve pods of one node: {error:#}"
        ));
    }
    if !ours {
        let routes = command::run("ip", &["-json", "route", "show", "table", "all"])?;
        let routes_v6 = command::run("ip", &["-json", "-6", "route", "show", "table", "all"])?;
        for text in [routes, routes_v6] {
            problems.extend(overlaps(&serde_json::from_str(&text)?));
        }
    }
    report(&problems)
}

fn report(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine cannot run the cluster yet:\n  - {}",
        problems.join("\n  - ")
    )
}

fn lack(what: &str, have: u64, need: u64, remedy: &str) -> String {
    let gib = |bytes: u64| format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB);
    format!(
        "{what} is low: {} available, {} needed; {remedy}",
        gib(have),
        gib(need)
    )
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn free_disk(dir: &Path) -> Result<u64> {
    // The directory itself may not be there yet.
    let existing = dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or_else(|| Path::new("/"));
    let stat = statvfs(existing)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn load_bridge_netfilter(say: &dyn Fn(&str)) -> Result<()> {
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        say("loading kernel module br_netfilter");
        command::run("modprobe", &["br_netfilter"])?;
    }
    Ok(())
}

/// Routes of the machine that the node network would hide or be hidden by.
fn overlaps(routes: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for route in routes.as_array().into_iter().flatten() {
        let (Some(destination), device) = (route["dst"].as_str(), route["dev"].as_str().unwrap_or("?"))
        else {
            continue;
        };
        if destination == "default" || device == HOST_LINK {
            continue;
        }
        let Some(net) = parse_net(destination) else {
            continue;
        };
        for ours in [NODE_NETWORK, NODE_NETWORK_V6] {
            let Some(ours) = parse_net(ours) else { continue };
            if ours.contains(&net) || net.contains(&ours) {
                found.push(format!(
                    "this machine has a route to {destination} by {device}, which overlaps with the cluster's node network {ours}; remove it"
                ));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn parse_net(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::default(json!({"dst": "default", "dev": "eth0"}), false)]
    #[case::elsewhere(json!({"dst": "192.168.1.0/24", "dev": "eth0"}), false)]
    #[case::wider(json!({"dst": "192.168.0.0/16", "dev": "vpn0"}), true)]
    #[case::a_host_inside(json!({"dst": "192.168.213.7", "dev": "eth0"}), true)]
    #[case::our_own(json!({"dst": "192.168.213.0/24", "dev": HOST_LINK}), false)]
    #[case::ipv6(json!({"dst": "fd00:213::/64", "dev": "wg0"}), true)]
    #[case::unknown_form(json!({"type": "unreachable"}), false)]
    fn only_a_route_into_the_node_network_is_a_problem(#[case] route: Value, #[case] problem: bool) {
        assert_eq!(overlaps(&json!([route])).len(), usize::from(problem));
    }

    #[test]
    fn a_lack_says_how_much_there_is_and_how_much_is_needed() {
        assert_eq!(
            lack("memory", GIB / 2, 2 * GIB, "buy"),
            "memory is low: 0.5 GiB available, 2.0 GiB needed; buy"
        );
    }
}
