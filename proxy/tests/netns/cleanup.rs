//! The `cleanup` subcommand on a node with many pods, some of which are deleted meanwhile.

use api::ObjectName;
use async_trait::async_trait;
use proxy::cleanup::{Outcome, cleanup};
use proxy::container_runtime::{self, Sandbox, SandboxSource};
use proxy::netns::Netns;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PODS: usize = 100;

/// Namespaces with managed rules and routes in both iptables variants, as sandboxes of a runtime.
struct Node {
    names: Vec<String>,
}

impl Node {
    fn new() -> Self {
        let name = |n| format!("mspnet{}xclean{n}", std::process::id());
        let node = Self {
            names: (0..PODS).map(name).collect(),
        };
        for name in &node.names {
            sh(&format!("ip netns add {name}"));
            sh(&format!("ip netns exec {name} sh -ec '{FILL}'"));
        }
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

const FILL: &str =
    "ip link set lo up; ip route add 172.30.0.10 dev lo proto 77; ip route add 172.30.0.11 dev lo; ip -6 route add fd00:96::10 dev lo proto 77
export XTABLES_LOCKFILE=/proc/self/ns/net
nft -f - <<EOR
table ip multus-proxy { chain nat { type nat hook output priority -100; ip daddr 172.30.0.10 tcp dport 80 dnat to 10.1.0.2:80; }; }
table ip6 multus-proxy { chain nat { type nat hook output priority -100; ip6 daddr fd00:96::10 tcp dport 80 dnat to [fd00:1::2]:80; }; }
table inet owners { }
EOR
fill() {
$1-restore --noflush <<EOR
*nat
:MSP-SERVICES - [0:0]
:MSP-SVC-A - [0:0]
:OWNERS - [0:0]
-A OUTPUT -j MSP-SERVICES
-A OUTPUT -j OWNERS
-A MSP-SERVICES -d $2 -j MSP-SVC-A
-A MSP-SVC-A -p tcp -j DNAT --to-destination $3
COMMIT
*filter
:MSP-SERVICES - [0:0]
-A OUTPUT -j MSP-SERVICES
-A MSP-SERVICES -d $2 -j REJECT
COMMIT
EOR
}
for v in nft legacy; do
fill iptables-$v 172.30.0.10 10.1.0.2:80
fill ip6tables-$v fd00:96::10 [fd00:1::2]:80
done";

/// Lists everything that cleanup could leave behind.
const LIST: &str = "export XTABLES_LOCKFILE=/proc/self/ns/net; ip route show table all; ip -6 route show table all; nft list tables
for p in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do $p -t nat -S; $p -S; done";

#[async_trait]
impl SandboxSource for Node {
    async fn ready(&self) -> Result<BTreeSet<String>, container_runtime::Error> {
        let others = ["gone-before".to_owned(), "host-network".to_owned()];
        Ok(self.names.iter().cloned().chain(others).collect())
    }

    async fn of_pod(&self, _: &str, _: &ObjectName) -> Result<Sandbox, container_runtime::Error> {
        Err(container_runtime::Error::NotReady)
    }

    async fn netns(&self, id: &str) -> Result<PathBuf, container_runtime::Error> {
        match id {
            "host-network" => Ok(PathBuf::from("/proc/self/ns/net")),
            _ => Ok(PathBuf::from(format!("/run/netns/{id}"))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and network namespaces: make test-netns"]
async fn cleanup_of_a_hundred_pods_finishes_in_time_while_some_are_deleted() {
    let node = Node::new();
    let vanishing: Vec<String> = node.names.iter().step_by(10).cloned().collect();
    let began = Instant::now();
    let removing = std::thread::spawn(move || {
        for name in vanishing {
            sh(&format!("ip netns del {name}"));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let outcome = cleanup(&node).await.unwrap();
    let took = began.elapsed();
    removing.join().unwrap();
    assert_eq!(
        outcome,
        Outcome {
            // Including the node itself.
            clean: PODS + 3,
            failed: 0
        }
    );
    println!("{PODS} namespaces cleaned in {took:?}");
    // The operator waits ten minutes for a node; this bound is for a shared test machine.
    assert!(took < Duration::from_mins(2), "{took:?}");
    for name in &node.names {
        let path = format!("/run/netns/{name}");
        let Ok(netns) = Netns::open(Path::new(&path)) else {
            continue;
        };
        let left = netns.run(|| sh(LIST)).unwrap();
        assert!(
            !left.contains("MSP-") && !left.contains("proto 77") && !left.contains("multus-proxy"),
            "{name}: {left}"
        );
        assert_eq!(left.matches("-A OUTPUT -j OWNERS").count(), 4, "{name}: {left}");
        assert!(left.contains("table inet owners"), "{name}: {left}");
        assert!(left.contains("172.30.0.11 dev lo"), "{name}: {left}");
    }
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
