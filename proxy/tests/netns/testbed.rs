//! A node in miniature: pods with `eth0` on a cluster network and `net1`, a macvlan, on a service network.
//!
//! ```text
//!   pod: eth0 (veth) ── bridge "cluster", the default gateway 10.128.0.1 ┐
//!        net1 (macvlan on "data1") ── network 1, 10.1.0.0/16             ├ all in the test bed's "node" namespace
//!        further interfaces        ── network 1 or 2, 10.2.0.0/16        ┘
//! ```

use api::Family;
use api::network_status::NetworkStatus;
use proxy::netns::Netns;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Prefix of the name of every test namespace; the process id follows.
const PREFIX: &str = "mspnet";

static TESTBEDS: AtomicU32 = AtomicU32::new(0);

/// The namespaces of one test.
pub(crate) struct Testbed {
    name: String,
    hosts: Vec<u8>,
}

/// A pod: host number `n` has 10.128.0.n and fd00:128::n on the cluster network, 10.1.0.n and fd00:1::n on network 1.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) host: u8,
    /// Content of network-status.
    pub(crate) status: Vec<NetworkStatus>,
}

/// Address of `host` on service network 1 or 2.
pub(crate) fn address(network: u8, family: Family, host: u8) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.{network}.0.{host}"),
        Family::V6 => format!("fd00:{network}::{host}"),
    };
    text.parse().unwrap()
}

impl Testbed {
    pub(crate) fn new() -> Self {
        remove_leftovers();
        let number = TESTBEDS.fetch_add(1, Ordering::Relaxed);
        let testbed = Self {
            name: format!("{PREFIX}{}x{number}", std::process::id()),
            hosts: Vec::new(),
        };
        let node = testbed.node();
        run(Command::new("ip").args(["netns", "add", &node]));
        ip_batch(
            &node,
            "link set lo up
             link add cluster type bridge
             addr add 10.128.0.1/14 dev cluster
             addr add fd00:128::1/64 dev cluster nodad
             link set cluster up
             link add data1 type veth peer name peer1
             link set data1 up
             link set peer1 up
             link add data2 type veth peer name peer2
             link set data2 up
             link set peer2 up",
        );
        testbed
    }

    pub(crate) fn node(&self) -> String {
        format!("{}n", self.name)
    }

    /// The namespace of the node.
    pub(crate) fn open_node(&self) -> Netns {
        Netns::open(&PathBuf::from(format!("/run/netns/{}", self.node()))).unwrap()
    }

    /// Adds a pod. `host` is the last part of its addresses.
    pub(crate) fn pod(&mut self, host: u8) -> Pod {
        let mut pod = Pod {
            netns: format!("{}p{host}", self.name),
            host,
            status: Vec::new(),
        };
        let netns = &pod.netns;
        run(Command::new("ip").args(["netns", "add", netns]));
        self.hosts.push(host);
        ip_batch(
            &self.node(),
            &format!(
                "link add v{host} type veth peer name eth0 netns {netns}
                 link set v{host} master cluster up"
            ),
        );
        // No link-local addresses: their routes would appear at any time, and tests compare routes.
        ip_batch(
            netns,
            &format!(
                "link set lo up
                 link set eth0 addrgenmode none
                 addr add 10.128.0.{host}/14 dev eth0
                 addr add fd00:128::{host}/64 dev eth0 nodad
                 link set eth0 up
                 route add default via 10.128.0.1
                 route add default via fd00:128::1"
            ),
        );
        pod.status.push(NetworkStatus {
            network: "cbr0".to_owned(),
            interface: "eth0".to_owned(),
            addresses: vec![
                IpAddr::from([10, 128, 0, host]),
                format!("fd00:128::{host}").parse().unwrap(),
            ],
        });
        self.attach(&mut pod, 1, "net1", host);
        pod
    }

    /// Adds an interface to a pod, with the addresses of `host` on service network 1 or 2.
    pub(crate) fn attach(&self, pod: &mut Pod, network: u8, interface: &str, host: u8) {
        let netns = &pod.netns;
        let addresses = Family::ALL.map(|family| address(network, family, host));
        ip_batch(
            &self.node(),
            &format!(
                "link add m{host} link data{network} type macvlan mode bridge
                 link set m{host} netns {netns} name {interface}"
            ),
        );
        ip_batch(
            netns,
            &format!(
                "link set {interface} addrgenmode none
                 addr add {}/16 dev {interface}
                 addr add {}/64 dev {interface} nodad
                 link set {interface} up",
                addresses[0], addresses[1]
            ),
        );
        pod.status.push(NetworkStatus {
            network: format!("web/macvlan{network}"),
            interface: interface.to_owned(),
            addresses: addresses.to_vec(),
        });
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let pods = self.hosts.iter().map(|host| format!("{}p{host}", self.name));
        for netns in pods.chain([self.node()]) {
            // A missing namespace must not prevent the removal of the others.
            let _ = Command::new("ip").args(["netns", "del", &netns]).output();
        }
    }
}

/// Removes the namespaces of killed runs.
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
    /// A pod created by another process, with network 1 only in its status.
    pub(crate) fn existing(netns: &str, host: u8) -> Self {
        let status = NetworkStatus {
            network: "web/macvlan1".to_owned(),
            interface: "net1".to_owned(),
            addresses: Family::ALL.map(|family| address(1, family, host)).to_vec(),
        };
        Self {
            netns: netns.to_owned(),
            host,
            status: vec![status],
        }
    }

    /// Adds a link-local address to an interface. Without one the kernel sends no neighbour solicitation on behalf of a source address that
    /// the interface does not have.
    pub(crate) fn link_local(&self, interface: &str) {
        self.sh(&format!(
            "ip addr add fe80::{}/64 dev {interface} nodad",
            self.host
        ));
    }

    /// IPv4 address on network 1.
    pub(crate) fn address(&self) -> IpAddr {
        address(1, Family::V4, self.host)
    }

    pub(crate) fn open(&self) -> Netns {
        Netns::open(&PathBuf::from(format!("/run/netns/{}", self.netns))).unwrap()
    }

    /// Runs `work` in the pod.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.open().run(work).unwrap()
    }

    /// Runs a command line in the pod and returns its output.
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

    /// All rules, user-defined chains and routes, without counters. Empty built-in tables do not count: they cannot be removed.
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
            "{} nft list table ip multus-proxy 2>/dev/null || true; nft list table ip6 multus-proxy 2>/dev/null || true; \
             ip route show table all; ip -6 route show table all",
            rules.join("")
        ))
    }
}

/// Runs lines of `ip` in a namespace, in one process.
fn ip_batch(netns: &str, lines: &str) {
    let mut child = Command::new("ip")
        .args(["-n", netns, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr} in\n{lines}");
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
