//! A node in miniature: pods with `eth0` on a cluster network and `net1`, a macvlan, on a service network.
//!
//! ```text
//!   pod: eth0 (veth) ── bridge "cluster", the default gateway 10.128.0.1 ┐
//!        net1 (macvlan on "data0") ── service network, 10.1.0.0/16        ┴ both in the bed's "node" namespace
//! ```

use proxy::netns::Netns;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Begins the name of every namespace of these tests; the process id follows.
const PREFIX: &str = "mspnet";

static BEDS: AtomicU32 = AtomicU32::new(0);

/// The namespaces of one test.
pub(crate) struct Bed {
    name: String,
    hosts: Vec<u8>,
}

/// One pod of it: host number `n` has 10.128.0.n, 10.1.0.n and fd00:1::n.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) host: u8,
}

impl Bed {
    pub(crate) fn new() -> Self {
        remove_leftovers();
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let bed = Self {
            name: format!("{PREFIX}{}x{number}", std::process::id()),
            hosts: Vec::new(),
        };
        let node = bed.node();
        ip(&format!("netns add {node}"));
        for command in [
            "link set lo up",
            "link add cluster type bridge",
            "addr add 10.128.0.1/14 dev cluster",
            "link set cluster up",
            "link add data0 type veth peer name data1",
            "link set data0 up",
            "link set data1 up",
        ] {
            ip(&format!("-n {node} {command}"));
        }
        bed
    }

    pub(crate) fn node(&self) -> String {
        format!("{}n", self.name)
    }

    /// Adds a pod. `host` is the last part of its addresses.
    pub(crate) fn pod(&mut self, host: u8) -> Pod {
        let pod = Pod {
            netns: format!("{}p{host}", self.name),
            host,
        };
        let (netns, node) = (&pod.netns, self.node());
        ip(&format!("netns add {netns}"));
        self.hosts.push(host);
        ip(&format!(
            "-n {node} link add v{host} type veth peer name eth0 netns {netns}"
        ));
        ip(&format!("-n {node} link set v{host} master cluster up"));
        ip(&format!(
            "-n {node} link add m{host} link data0 type macvlan mode bridge"
        ));
        ip(&format!("-n {node} link set m{host} netns {netns} name net1"));
        for command in [
            "link set lo up".to_owned(),
            // No link-local addresses: their routes would come when they like, and tests compare routes.
            "link set eth0 addrgenmode none".to_owned(),
            "link set net1 addrgenmode none".to_owned(),
            format!("addr add 10.128.0.{host}/14 dev eth0"),
            "link set eth0 up".to_owned(),
            "route add default via 10.128.0.1".to_owned(),
            format!("addr add 10.1.0.{host}/16 dev net1"),
            format!("addr add fd00:1::{host}/64 dev net1 nodad"),
            "link set net1 up".to_owned(),
        ] {
            ip(&format!("-n {netns} {command}"));
        }
        pod
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let pods = self.hosts.iter().map(|host| format!("{}p{host}", self.name));
        for netns in pods.chain([self.node()]) {
            // The rest must go even if one is gone already.
            let _ = Command::new("ip").args(["netns", "del", &netns]).output();
        }
    }
}

/// Of a run that was killed.
fn remove_leftovers() {
    let listed = run(Command::new("ip").args(["netns", "list"]));
    for netns in listed.lines().filter_map(|line| line.split(' ').next()) {
        let owner = netns.strip_prefix(PREFIX).and_then(|rest| rest.split('x').next());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
    }
}

impl Pod {
    pub(crate) fn address(&self) -> IpAddr {
        IpAddr::from([10, 1, 0, self.host])
    }

    /// Runs `work` in the pod.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Netns::open(&PathBuf::from(format!("/run/netns/{}", self.netns)))
            .unwrap()
            .run(work)
            .unwrap()
    }

    /// Runs a command line in the pod and returns what it prints.
    pub(crate) fn sh(&self, line: &str) -> String {
        run(self.command().args(["sh", "-ec", line]))
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.netns])
            .env("XTABLES_LOCKFILE", "/proc/self/ns/net");
        command
    }

    /// Every rule, user-defined chain and route, without counters. Empty built-in tables do not count: they cannot be removed.
    pub(crate) fn state(&self) -> String {
        let rules = [
            "iptables-legacy",
            "ip6tables-legacy",
            "iptables-nft",
            "ip6tables-nft",
        ]
        .map(|save| {
            format!("echo {save}; {save}-save 2>/dev/null | sed -n 's/^\\(:[^ ]* -\\) .*/\\1/p; /^-A/p'; ")
        });
        self.sh(&format!(
            "{} ip route show table all; ip -6 route show table all",
            rules.join("")
        ))
    }
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}
