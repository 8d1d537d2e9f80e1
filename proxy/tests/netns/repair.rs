//! Changes by other processes in a served pod are repaired, in either family.
//!
//! The driver is notified of routes, links and addresses; rules are polled.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, ready};
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Server, probe};
use api::Family;
use rules::Protocol;
use std::time::{Duration, Instant};

/// The documented bound is 5 s; the test machine is shared.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(12);

fn served_by(client: &Pod, web: &Service, family: Family) -> Option<u8> {
    client
        .run(|| probe(Protocol::Tcp, web.at(family, 80)))
        .host_if_any()
}

/// A pod that reaches a Service in both families. Fields are in drop order.
struct ServedPod {
    driver: Driver,
    _server: Server,
    client: Pod,
    web: Service,
    _testbed: Testbed,
}

impl ServedPod {
    fn new(kind: BackendKind) -> Self {
        let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
        let client = testbed.pod(7);
        let server = Server::start(&testbed.pod(2));
        let web = Service::new("web", 10).ready(&[2]);
        let object = object(&client);
        runtime.set_sandbox(uid(&object), &client.netns);
        let this = Self {
            driver: Driver::start(&runtime, kind, &[&web], &[&object]),
            _server: server,
            client,
            web,
            _testbed: testbed,
        };
        until("served", || this.driver.is_ready() && this.is_complete());
        this
    }

    fn responding_host(&self, family: Family) -> Option<u8> {
        served_by(&self.client, &self.web, family)
    }

    fn is_complete(&self) -> bool {
        Family::ALL.map(|family| self.responding_host(family)) == [Some(2); 2]
    }
}

fn assert_repaired_in_time(what: &str, holds: impl FnMut() -> bool) {
    let began = Instant::now();
    until(what, holds);
    println!("{what}: repaired after {:?}", began.elapsed());
    assert!(began.elapsed() < REPAIR_TIMEOUT, "{what}: {:?}", began.elapsed());
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn rules_and_routes_of_either_family_are_repaired() {
    for kind in [BackendKind::Nftables, BackendKind::IptablesNft] {
        let served = ServedPod::new(kind);
        let (client, is_served) = (&served.client, || served.is_complete());
        let delete_rules = match kind {
            BackendKind::Nftables => "nft delete table ip6 multus-proxy",
            _ => "ip6tables-nft -t nat -F; ip6tables-nft -F",
        };
        // Each command, with a listing that must be empty afterwards.
        for (damage, left) in [
            ("ip -6 route flush proto 77", "ip -6 route show proto 77"),
            ("ip route flush proto 77", "ip route show proto 77"),
            ("nft flush ruleset", "nft list ruleset"),
            (delete_rules, "nft list ruleset | grep fd00:96::10 || true"),
            ("ip link set net1 down", "ip route show dev net1"),
            (
                "ip link set net1 up; ip addr replace fd00:1::7/64 dev net1 nodad",
                "true",
            ),
        ] {
            let left = client.sh(&format!("{damage}; {left}"));
            assert_eq!(left, "", "{damage}");
            if !damage.ends_with("down") {
                assert_repaired_in_time(damage, is_served);
            }
        }
        served.driver.stop();
    }
}

/// One large transaction that also deletes the managed table, while the driver is paused.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn transaction_too_large_for_notifications_is_repaired() {
    let served = ServedPod::new(BackendKind::Nftables);
    let elements = "seq 300000 | awk '{printf \"%d, \", $1}'";
    let delete = "delete table ip multus-proxy; add table ip large; add set ip large s { type mark; }";
    served.driver.while_paused(|| {
        served.client.sh(&format!(
            "(echo '{delete}'; echo \"add element ip large s {{ $({elements}) }}\") | nft -f -"
        ))
    });
    assert_repaired_in_time("a transaction too large for notifications", || {
        served.responding_host(Family::V4) == Some(2)
    });
    served.driver.stop();
}

/// Endpoints in another subnet are served while the pod has a route to them through the network's interface.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn endpoints_in_other_subnets_follow_route_changes() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let client = testbed.pod(7);
    let server = testbed.pod(3);
    server.sh("ip addr add 10.2.0.3/16 dev net1; ip addr add fd00:2::3/64 dev net1 nodad");
    let _server = Server::start(&server);
    let mut web = Service::new("web", 10);
    web.endpoints = ready(&[3]);
    web.endpoints[0].network = Some(2);
    let object = object(&client);
    runtime.set_sandbox(object.metadata.uid.as_ref().unwrap(), &client.netns);
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&web], &[&object]);
    until("ready", || driver.is_ready());
    let why = || {
        driver.state_of(&object)["why"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for (family, ip, subnet) in [
        (Family::V4, "ip", "10.2.0.0/16"),
        (Family::V6, "ip -6", "fd00:2::/64"),
    ] {
        let endpoint = address(2, family, 3).to_string();
        let probe = || client.run(|| probe(Protocol::Tcp, web.at(family, 80)));
        assert_eq!(probe(), Outcome::Rejected);
        until("the missing route is reported", || why().contains(&endpoint));
        client.sh(&format!("{ip} route add {subnet} dev net1"));
        assert_repaired_in_time("the route was added", || probe().host_if_any() == Some(3));
        until("nothing is reported", || !why().contains(&endpoint));
        client.sh(&format!("{ip} route del {subnet} dev net1"));
        assert_repaired_in_time("the route was deleted", || probe() == Outcome::Rejected);
        until("the missing route is reported again", || {
            why().contains(&endpoint)
        });
    }
}
