//! A broken attachment of a pod: its ClusterIPs are rejected and reported with the cause, all others follow every change, and the broken
//! ones are served again once the cause is removed.

use super::fake_node::{Driver, FakeRuntime, object, object_with, until};
use super::matrix::{BackendKind, Case, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Server, probe};
use api::Family;
use k8s_openapi::api::core::v1;
use rules::Protocol::{Tcp, Udp};

for_every_backend_and_family![
    interface_that_is_down_affects_only_its_own_network,
    missing_interface_affects_only_its_own_network,
];

/// Offset of host numbers on network 2.
const ON_NETWORK_2: u8 = 50;

/// A client on two networks, two servers on both, and the driver. Fields are in drop order.
struct Fixture {
    driver: Driver,
    _servers: [Server; 2],
    client: Pod,
    object: v1::Pod,
    _testbed: Testbed,
}

/// A Service on network 1 or 2.
fn service(name: &str, number: u8, network: u8, host: u8) -> Service {
    let mut service = Service::new(name, number);
    service.network = network;
    service.endpoints = ready(&[if network == 2 { host + ON_NETWORK_2 } else { host }]);
    service
}

impl Fixture {
    fn new(kind: BackendKind, services: &[&Service]) -> Self {
        let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
        let servers = [2, 3].map(|host| {
            let mut pod = testbed.pod(host);
            testbed.attach(&mut pod, 2, "net2", host + ON_NETWORK_2);
            Server::start(&pod)
        });
        let mut client = testbed.pod(7);
        testbed.attach(&mut client, 2, "net2", 7 + ON_NETWORK_2);
        let object = object(&client);
        runtime.set_sandbox(object.metadata.uid.as_ref().unwrap(), &client.netns);
        let driver = Driver::start(&runtime, kind, services, &[&object]);
        until("ready", || driver.is_ready());
        Self {
            driver,
            _servers: servers,
            client,
            object,
            _testbed: testbed,
        }
    }

    fn probe(&self, service: &Service, family: Family) -> Outcome {
        self.client.run(|| probe(Tcp, service.at(family, 80)))
    }

    /// Returns true if TCP and UDP reach this host.
    fn is_served(&self, service: &Service, family: Family, host: u8) -> bool {
        [(Tcp, 80), (Udp, 53)].into_iter().all(|(protocol, port)| {
            let outcome = self.client.run(|| probe(protocol, service.at(family, port)));
            outcome.host_if_any() == Some(host)
        })
    }

    fn why(&self) -> String {
        let state = self.driver.state_of(&self.object);
        state["why"].as_str().unwrap_or_default().to_owned()
    }
}

fn interface_that_is_down_affects_only_its_own_network(Case { kind, family }: Case) {
    // The kernel removes IPv6 addresses when the link goes down.
    let again = format!("ip addr replace {}/64 dev net1 nodad", address(1, Family::V6, 7));
    check_isolation(
        Case { kind, family },
        "ip link set net1 down",
        &format!("ip link set net1 up; {again}"),
        "interface \"net1\" is down",
    );
}

fn missing_interface_affects_only_its_own_network(Case { kind, family }: Case) {
    check_isolation(
        Case { kind, family },
        "ip link set net1 down; ip link set net1 name other",
        &format!(
            "ip link set other name net1; ip link set net1 up; ip addr replace {}/64 dev net1 nodad",
            address(1, Family::V6, 7)
        ),
        "the pod has no interface \"net1\"",
    );
}

fn check_isolation(Case { kind, family }: Case, break_command: &str, repair_command: &str, cause: &str) {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let fixture = Fixture::new(kind, &[&first, &second]);
    for service in [&first, &second] {
        until("served", || fixture.is_served(service, family, 2));
    }
    fixture.client.sh(break_command);
    // Its endpoint is replaced, and the healthy network gets another Service.
    let (second, third) = (service("second", 20, 2, 3), service("third", 21, 2, 2));
    let late = service("late", 11, 1, 2);
    for service in [&second, &third, &late] {
        fixture.driver.service(service);
    }
    until("the old Service of the healthy network follows", || {
        fixture.is_served(&second, family, 3)
    });
    until("the new one is served", || fixture.is_served(&third, family, 2));
    for service in [&first, &late] {
        until("Services of the broken network are rejected", || {
            fixture.probe(service, family) == Outcome::Rejected
        });
    }
    until("the cause is reported", || fixture.why().contains(cause));
    let condition = fixture.driver.condition();
    until("the condition reports the cause", || {
        let condition = fixture.driver.condition();
        !condition.holds && condition.message.contains(cause)
    });
    assert!(!fixture.why().contains("net2"), "{condition:?}");
    fixture.client.sh(repair_command);
    for service in [&first, &late, &third] {
        until("served again", || fixture.is_served(service, family, 2));
    }
    until("the condition is True", || {
        fixture.driver.condition().holds && fixture.why().is_empty()
    });
}

/// A network-status entry without an interface, as some plugins write it (network-attachment-definition-client#75, multus-cni#648).
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn status_without_an_interface_uses_the_interface_that_has_the_address() {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let fixture = Fixture::new(BackendKind::Nftables, &[&first, &second]);
    let status = |address: &str| {
        format!(
            r#"[{{"name": "web/macvlan1", "ips": ["{address}", "fd00:1::7"], "dns": {{}}}}, {{"name": "web/macvlan2", "interface": "net2", "ips": ["10.2.0.57", "fd00:2::57"]}}]"#
        )
    };
    fixture
        .driver
        .pod(&object_with(&fixture.client, &status("10.1.0.7")));
    until("the condition is True", || {
        fixture.driver.condition().holds && fixture.why().is_empty()
    });
    for family in Family::ALL {
        assert!(fixture.is_served(&first, family, 2), "{family}");
        assert!(fixture.is_served(&second, family, 2), "{family}");
    }
    // While an attempt runs, nothing counts as applied.
    until("the interface is in the state", || {
        let services = fixture.driver.state_of(&fixture.object)["services"].to_string();
        services.contains("net1 10.1.0.7") && !services.contains("\"applied\":false")
    });
    // An address that no interface has is reported as such.
    fixture
        .driver
        .pod(&object_with(&fixture.client, &status("10.1.0.99")));
    until("rejected", || {
        fixture.probe(&first, Family::V4) == Outcome::Rejected
    });
    assert!(fixture.is_served(&first, Family::V6, 2) && fixture.is_served(&second, Family::V4, 2));
    until("the cause is reported", || {
        fixture
            .why()
            .contains("no interface of the pod has address 10.1.0.99")
    });
    assert!(!fixture.why().contains("IPAM"), "{}", fixture.why());
}

/// An invalid entry or address of network-status affects only itself.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn invalid_address_of_one_network_affects_no_other() {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let fixture = Fixture::new(BackendKind::Nftables, &[&first, &second]);
    let status = r#"[{"name": "web/macvlan1", "interface": "net1", "ips": ["<nil>", "fd00:1::7"]},
        {"name": 7},
        {"name": "web/macvlan2", "interface": "net2", "ips": ["10.2.0.57", "fd00:2::57"]}]"#;
    fixture.driver.pod(&object_with(&fixture.client, status));
    until("the address without a family is rejected", || {
        fixture.probe(&first, Family::V4) == Outcome::Rejected
    });
    until("the invalid address is reported", || {
        fixture
            .why()
            .contains("\"<nil>\" of network \"web/macvlan1\" is not an IP address")
    });
    assert!(fixture.why().contains("entry 2"), "{}", fixture.why());
    assert!(fixture.is_served(&first, Family::V6, 2));
    fixture.driver.service(&service("second", 20, 2, 3));
    for family in Family::ALL {
        until("the other network follows", || {
            fixture.is_served(&second, family, 3)
        });
    }
}

/// IPv6 disabled on an interface affects only IPv6, and is reported as the cause.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn disabled_ipv6_affects_only_ipv6() {
    for kind in BackendKind::ALL {
        let first = service("first", 10, 1, 2);
        let fixture = Fixture::new(kind, &[&first]);
        for family in Family::ALL {
            until("served", || fixture.is_served(&first, family, 2));
        }
        fixture.client.sh("sysctl -qw net.ipv6.conf.net1.disable_ipv6=1");
        let late = service("late", 11, 1, 3);
        fixture.driver.service(&late);
        until("the new Service is served by IPv4", || {
            fixture.is_served(&late, Family::V4, 3)
        });
        until("IPv6 is rejected", || {
            fixture.probe(&first, Family::V6) == Outcome::Rejected
                && fixture.probe(&late, Family::V6) == Outcome::Rejected
        });
        assert!(fixture.is_served(&first, Family::V4, 2));
        until("the cause is reported", || {
            fixture.why().contains("IPv6 is disabled on interface \"net1\"")
        });
        assert!(fixture.why().contains("IPv6 ClusterIPs"), "{}", fixture.why());
        assert!(!fixture.why().contains("DPDK"), "{}", fixture.why());
        fixture
            .client
            .sh("sysctl -qw net.ipv6.conf.net1.disable_ipv6=0; ip addr replace fd00:1::7/64 dev net1 nodad");
        until("served again", || fixture.is_served(&late, Family::V6, 3));
        until("the condition is True", || fixture.driver.condition().holds);
    }
}
