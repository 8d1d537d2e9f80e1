//! The node itself as a client. A child process in the node namespace of the test bed acts as the node.

use super::fake_node::{Driver, FakeRuntime, object, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::Service;
use super::packet_capture::send_raw;
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Server, probe, request_from};
use api::Family;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use proxy::cleanup::{Outcome as CleanupOutcome, cleanup};
use rules::Protocol::{Tcp, Udp};
use std::net::SocketAddr;
use std::process::Command;

for_every_backend![node_is_served_only_on_an_interface_that_reaches_pods];

/// Set in the child process: the namespace of a pod.
const ON_THE_NODE: &str = "MSP_TEST_ON_THE_NODE";

fn node_is_served_only_on_an_interface_that_reaches_pods(kind: BackendKind) {
    if let Some(netns) = std::env::var_os(ON_THE_NODE) {
        return on_the_node(kind, &netns.into_string().unwrap());
    }
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let _server = Server::start(&testbed.pod(2));
    let name = std::thread::current().name().unwrap().to_owned();
    let output = Command::new("ip")
        .args(["netns", "exec", &testbed.node()])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &name])
        .env(ON_THE_NODE, &client.netns)
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && output_text.contains("1 passed"),
        "{output_text}"
    );
}

fn on_the_node(kind: BackendKind, netns: &str) {
    // The far end of the pods' network, like a second port of the node.
    sh("ip addr add 10.1.0.77/16 dev peer1; ip addr add fd00:1::77/64 dev peer1 nodad");
    let pod = Pod::existing(netns, 7);
    let (web, uid) = (Service::new("web", 10).ready(&[2]), object(&pod));
    let runtime = FakeRuntime::new();
    runtime.set_sandbox(uid.metadata.uid.as_ref().unwrap(), netns);
    let driver = Driver::start(&runtime, kind, &[&web], &[&uid]);
    let pod_is_served =
        || pod.run(|| probe(Tcp, web.at(Family::V4, 80))) == Outcome::Answered(2, pod.address());
    until("the pod is served", pod_is_served);
    driver.map("web/macvlan1=peer1");
    if kind == BackendKind::IptablesLegacy {
        until("the backend is rejected", || {
            driver.condition().message.contains("share its lock")
        });
        assert!(!sh("iptables-legacy-save").contains("MSP-"));
    } else {
        for family in Family::ALL {
            for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
                let served = Outcome::Answered(2, address(1, family, 77));
                until("the node is served", || {
                    probe(protocol, web.at(family, port)) == served
                });
            }
            assert_eq!(probe(Tcp, web.at(family, 81)), Outcome::Rejected);
            assert_sockets_use_the_network_address(&web, family);
        }
        until("the condition is True", || driver.condition().holds);
        // Otherwise traffic of pods through the node would reach a network that they are not attached to.
        let rules = sh("nft list ruleset");
        assert!(
            rules.contains("172.30.0.10") && !rules.contains("hook prerouting"),
            "{rules}"
        );
        assert!(resets_leave_the_node(&pod), "{rules}");
        // The kernel sends no notifications for the node's own namespace.
        sh("ip route flush proto 77; ip -6 route flush proto 77; nft flush ruleset");
        assert!(is_clean(&sh(LEFT)));
        until("the node is repaired", || {
            let served = |family| probe(Tcp, web.at(family, 80)).host_if_any() == Some(2);
            Family::ALL.into_iter().all(served)
        });
    }
    driver.map("web/macvlan1=data1");
    until("a macvlan parent is rejected", || {
        let condition = driver.condition();
        !condition.holds && (condition.message.contains("parent") || kind == BackendKind::IptablesLegacy)
    });
    until("nothing is left", || is_clean(&sh(LEFT)));
    assert!(pod_is_served());
    if kind != BackendKind::IptablesLegacy {
        driver.map("web/macvlan1=peer1");
        until("the node is served again", || {
            probe(Tcp, web.at(Family::V4, 80)).host_if_any() == Some(2)
        });
    }
    driver.map("web/macvlan1=no-such");
    until("a missing interface is reported", || !driver.condition().holds);
    assert!(pod_is_served());
    if kind != BackendKind::IptablesLegacy {
        driver.map("web/macvlan1=peer1");
        until("the node is served again", || {
            probe(Tcp, web.at(Family::V4, 80)).host_if_any() == Some(2)
        });
    }
    driver.stop();
    let runtime_for_cleanup = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cleaned = runtime_for_cleanup.block_on(cleanup(runtime.as_ref())).unwrap();
    assert_eq!(cleaned, CleanupOutcome { clean: 2, failed: 0 });
    assert!(is_clean(&sh(LEFT)), "{}", sh(LEFT));
}

/// Sockets use the address on the network regardless of the address they are bound to. Flows translated by other tables, such as
/// kube-proxy's, keep their source.
fn assert_sockets_use_the_network_address(web: &Service, family: Family) {
    let bound = match family {
        Family::V4 => "10.128.0.1",
        Family::V6 => "fd00:128::1",
    };
    let bound = bound.parse().unwrap();
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        let answer = request_from(Some(bound), protocol, web.at(family, port)).unwrap();
        assert_eq!(answer.seen, address(1, family, 77), "{protocol} {family}");
    }
    if family == Family::V4 {
        sh("nft add table ip unmanaged
            nft add chain ip unmanaged output '{ type nat hook output priority -100; }'
            nft add rule ip unmanaged output ip daddr 172.31.0.1 tcp dport 80 dnat to 10.1.0.2:8080
            ip route add 172.31.0.1 dev cluster");
        let to = SocketAddr::from(([172, 31, 0, 1], 80));
        assert_eq!(request_from(Some(bound), Tcp, to).unwrap().seen, bound);
        sh("nft delete table ip unmanaged; ip route del 172.31.0.1 dev cluster");
    }
}

/// Returns true if a reset without a flow leaves the node: packets of other programs must not be affected.
fn resets_leave_the_node(pod: &Pod) -> bool {
    pod.sh("nft add table inet seen; nft add chain inet seen input '{ type filter hook input priority -300; }'; nft add rule inet seen input ip saddr 10.1.0.77 tcp sport 4444 counter");
    let mut reset = [0; 20];
    reset[..2].copy_from_slice(&4444_u16.to_be_bytes());
    // Five words of header; RST.
    (reset[12], reset[13]) = (5 << 4, 4);
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::Tcp,
    )
    .unwrap();
    // The sender gets an error if a rule drops the packet.
    let sent = send_raw(&raw, &reset, address(1, Family::V4, 7));
    let seen = pod.sh("nft list table inet seen");
    sent.is_ok() && seen.contains("packets 1 ")
}

const LEFT: &str = "nft list ruleset; ip route show proto 77; ip -6 route show proto 77";

fn is_clean(left: &str) -> bool {
    !["172.30.0.10", "fd00:96::", "proto 77"]
        .iter()
        .any(|managed| left.contains(managed))
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
