//! Namespaces with very many routes and flows: reading them uses bounded memory.

use super::echo_server::Server;
use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::Service;
use super::pod_churn::{Resources, run_in_subprocess};
use super::testbed::Testbed;
use super::traffic::hosts;
use api::Family;
use rules::Protocol;
use std::net::UdpSocket;

const ROUTES: u32 = 100_000;
const FLOWS: u32 = 100_000;

/// Each route and each flow takes several hundred bytes once decoded.
const MAX_MORE_MEMORY_KIB: usize = 32 << 10;

const SUBPROCESS: &str = "MSP_FLOOD_SUBPROCESS";

/// Does nothing unless started by the other test.
#[test]
#[ignore = "started by unbounded_route_and_flow_lists_cost_no_memory"]
fn subprocess() {
    if std::env::var_os(SUBPROCESS).is_none() {
        return;
    }
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let _servers = [2, 3].map(|host| Server::start(&testbed.pod(host)));
    let client = testbed.pod(7);
    let object = object(&client);
    runtime.set_sandbox(uid(&object), &client.netns);
    let web = |host| Service::new("web", 10).ready(&[host]);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web(2)], &[&object]);
    until("ready", || driver.is_ready());

    client.sh(&format!(
        "ip link add sink type veth peer name sunk; ip link set sink arp off up; ip link set sunk up; ip route add 100.64.0.0/10 dev sink; \
         seq {ROUTES} | awk '{{n = $1; printf \"route add 10.%d.%d.%d dev sink table 77\\n\", 200 + n / 65536, n / 256 % 256, n % 256}}' | ip -batch -"
    ));
    client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..FLOWS {
            let [_, a, b, c] = n.to_be_bytes();
            // Drops by a full interface queue do not matter: enough packets remain.
            let _ = socket.send_to(b"x", (format!("100.{}.{b}.{c}", 64 + a), 9));
        }
    });
    let flows: u32 = client.sh("conntrack -C 2>/dev/null").trim().parse().unwrap();
    assert!(flows > FLOWS / 2, "only {flows} flows");
    let before = Resources::now();
    Resources::reset_peak();
    let at = web(2).at(Family::V4, 80);
    for host in [3, 2, 3] {
        // The driver searches all flows for those to the other endpoint, and all routes for its own.
        driver.service(&web(host));
        driver.pod(&object);
        client.sh("ip route flush proto 77");
        until("the client uses the new endpoint", || {
            hosts(&client, Protocol::Tcp, at).into_iter().eq([host])
        });
        until("the routes are restored", || {
            client.sh("ip route show 172.30.0.10").contains("net1")
        });
    }
    let after = Resources::now();
    println!("{flows} flows, {ROUTES} routes: before {before:?}, after {after:?}");
    assert!(
        after.peak_kib <= before.memory_kib + MAX_MORE_MEMORY_KIB,
        "{before:?} {after:?}"
    );
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn unbounded_route_and_flow_lists_cost_no_memory() {
    run_in_subprocess("large_dumps::subprocess", SUBPROCESS);
}
