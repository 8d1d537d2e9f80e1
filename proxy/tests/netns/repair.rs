//! What others change in a served pod is mended without being asked, in either family.
//!
//! The driver listens to routes, links and addresses; for rules it asks in rounds.

use super::fake_node::{Driver, Runtime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, ready};
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Server, probe};
use rules::{Family, Protocol};
use std::time::{Duration, Instant};

/// Five seconds are promised; this machine does much else.
const SOON: Duration = Duration::from_secs(12);

fn served_by(client: &Pod, web: &Service, family: Family) -> Option<u8> {
    client
        .run(|| probe(Protocol::Tcp, web.at(family, 80)))
        .host_if_any()
}

/// A pod that reaches a Service by either family. In the order in which its parts may end.
struct Served {
    driver: Driver,
    _server: Server,
    client: Pod,
    web: Service,
    _testbed: Testbed,
}

impl Served {
    fn with(kind: BackendKind) -> Self {
        let (mut testbed, runtime) = (Testbed::new(), Runtime::new());
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

    fn by(&self, family: Family) -> Option<u8> {
        served_by(&self.client, &self.web, family)
    }

    fn is_complete(&self) -> bool {
        Family::ALL.map(|family| self.by(family)) == [Some(2); 2]
    }
}

fn soon(what: &str, holds: impl FnMut() -> bool) {
    let began = Instant::now();
    until(what, holds);
    println!("{what}: mended after {:?}", began.elapsed());
    assert!(began.elapsed() < SOON, "{what}: {:?}", began.elapsed());
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn rules_and_routes_of_either_family_are_repaired() {
    for kind in [BackendKind::Nftables, BackendKind::IptablesNft] {
        let served = Served::with(kind);
        let (client, is_served) = (&served.client, || served.is_complete());
        let ours = match kind {
            BackendKind::Nftables => "nft delete table ip6 multus-proxy",
            _ => "ip6tables-nft -t nat -F; ip6tables-nft -F",
        };
        // Each with what lists what it must have taken away.
        for (harm, left) in [
            ("ip -6 route flush proto 77", "ip -6 route show proto 77"),
            ("ip route flush proto 77", "ip route show proto 77"),
            ("nft flush ruleset", "nft list ruleset"),
            (ours, "nft list ruleset | grep fd00:96::10 || true"),
            ("ip link set net1 down", "ip route show dev net1"),
            (
                "ip link set net1 up; ip addr replace fd00:1::7/64 dev net1 nodad",
                "true",
            ),
        ] {
            let left = client.sh(&format!("{harm}; {left}"));
            assert_eq!(left, "", "{harm}");
            if !harm.ends_with("down") {
                soon(harm, is_served);
            }
        }
        served.driver.stop();
    }
}

/// One transaction among whose objects ours are a few, while the driver has no time: it is noticed all the same.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn transaction_too_large_for_notifications_is_repaired() {
    let served = Served::with(BackendKind::Nftables);
    let much = "seq 300000 | awk '{printf \"%d, \", $1}'";
    let delete = "delete table ip multus-proxy; add table ip much; add set ip much s { type mark; }";
    served.driver.held(|| {
        served.client.sh(&format!(
            "(echo '{delete}'; echo \"add element ip much s {{ $({much}) }}\") | nft -f -"
        ))
    });
    soon("more than can be told", || served.by(Family::V4) == Some(2));
    served.driver.stop();
}

/// Endpoints in another subnet are served while the pod has a route to them by the interface of the network.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn endpoints_in_other_subnets_follow_route_changes() {
    let (mut testbed, runtime) = (Testbed::new(), Runtime::new());
    let client = testbed.pod(7);
    let far = testbed.pod(3);
    far.sh("ip addr add 10.2.0.3/16 dev net1; ip addr add fd00:2::3/64 dev net1 nodad");
    let _server = Server::start(&far);
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
        until("it is said", || why().contains(&endpoint));
        client.sh(&format!("{ip} route add {subnet} dev net1"));
        soon("the route came", || probe().host_if_any() == Some(3));
        until("nothing is said", || !why().contains(&endpoint));
        client.sh(&format!("{ip} route del {subnet} dev net1"));
        soon("the route went", || probe() == Outcome::Rejected);
        until("it is said again", || why().contains(&endpoint));
    }
}
