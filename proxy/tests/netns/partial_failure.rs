//! One attachment of a pod is broken: its own ClusterIPs are rejected and reported with the cause, all others of the pod follow every
//! change, and the broken ones are served again when the cause is gone.

use super::fake_node::{Driver, Runtime, object, object_with, until};
use super::matrix::{Case, Kind, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::testbed::{Bed, Pod, address};
use super::traffic::{Outcome, Server, ask};
use k8s_openapi::api::core::v1;
use rules::Family;
use rules::Protocol::{Tcp, Udp};

for_every_backend_and_family![
    an_interface_that_is_down_harms_its_own_network_alone,
    an_interface_that_is_gone_harms_its_own_network_alone,
];

/// On network 2 a host has a number that is higher by this.
const ON_NETWORK_2: u8 = 50;

/// A client on two networks, two servers on both, and the driver. In the order in which its parts may end.
struct Scene {
    driver: Driver,
    _servers: [Server; 2],
    client: Pod,
    object: v1::Pod,
    _bed: Bed,
}

/// A Service on network 1 or 2.
fn service(name: &str, number: u8, network: u8, host: u8) -> Service {
    let mut service = Service::new(name, number);
    service.network = network;
    service.endpoints = ready(&[if network == 2 { host + ON_NETWORK_2 } else { host }]);
    service
}

impl Scene {
    fn new(kind: Kind, services: &[&Service]) -> Self {
        let (mut bed, runtime) = (Bed::new(), Runtime::new());
        let servers = [2, 3].map(|host| {
            let mut pod = bed.pod(host);
            bed.attach(&mut pod, 2, "net2", host + ON_NETWORK_2);
            Server::start(&pod)
        });
        let mut client = bed.pod(7);
        bed.attach(&mut client, 2, "net2", 7 + ON_NETWORK_2);
        let object = object(&client);
        runtime.ready_in(object.metadata.uid.as_ref().unwrap(), &client.netns);
        let driver = Driver::start(&runtime, kind, services, &[&object]);
        until("ready", || driver.is_ready());
        Self {
            driver,
            _servers: servers,
            client,
            object,
            _bed: bed,
        }
    }

    fn ask(&self, service: &Service, family: Family) -> Outcome {
        self.client.run(|| ask(Tcp, service.at(family, 80)))
    }

    /// By TCP and UDP.
    fn is_served(&self, service: &Service, family: Family, host: u8) -> bool {
        [(Tcp, 80), (Udp, 53)].into_iter().all(|(protocol, port)| {
            let outcome = self.client.run(|| ask(protocol, service.at(family, port)));
            outcome.host_if_any() == Some(host)
        })
    }

    fn why(&self) -> String {
        let state = self.driver.state_of(&self.object);
        state["why"].as_str().unwrap_or_default().to_owned()
    }
}

fn an_interface_that_is_down_harms_its_own_network_alone(Case { kind, family }: Case) {
    // The kernel takes IPv6 addresses along with the link.
    let again = format!("ip addr replace {}/64 dev net1 nodad", address(1, Family::V6, 7));
    harm(
        Case { kind, family },
        "ip link set net1 down",
        &format!("ip link set net1 up; {again}"),
        "interface \"net1\" is down",
    );
}

fn an_interface_that_is_gone_harms_its_own_network_alone(Case { kind, family }: Case) {
    harm(
        Case { kind, family },
        "ip link set net1 down; ip link set net1 name other",
        &format!(
            "ip link set other name net1; ip link set net1 up; ip addr replace {}/64 dev net1 nodad",
            address(1, Family::V6, 7)
        ),
        "the pod has no interface \"net1\"",
    );
}

fn harm(Case { kind, family }: Case, break_it: &str, mend_it: &str, cause: &str) {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let scene = Scene::new(kind, &[&first, &second]);
    for service in [&first, &second] {
        until("served", || scene.is_served(service, family, 2));
    }
    scene.client.sh(break_it);
    // Its endpoint is replaced, and another Service of the healthy network is new.
    let (second, third) = (service("second", 20, 2, 3), service("third", 21, 2, 2));
    let late = service("late", 11, 1, 2);
    for service in [&second, &third, &late] {
        scene.driver.service(service);
    }
    until("the old Service of the healthy network follows", || {
        scene.is_served(&second, family, 3)
    });
    until("the new one is served", || scene.is_served(&third, family, 2));
    for service in [&first, &late] {
        until("those of the broken network are rejected at once", || {
            scene.ask(service, family) == Outcome::Rejected
        });
    }
    until("the cause is reported", || scene.why().contains(cause));
    let condition = scene.driver.condition();
    until("the condition has it, too", || {
        let condition = scene.driver.condition();
        !condition.holds && condition.message.contains(cause)
    });
    assert!(!scene.why().contains("net2"), "{condition:?}");
    scene.client.sh(mend_it);
    for service in [&first, &late, &third] {
        until("served again", || scene.is_served(service, family, 2));
    }
    until("all is well", || {
        scene.driver.condition().holds && scene.why().is_empty()
    });
}

/// An entry of network-status without an interface, as some plugins leave it (network-attachment-definition-client#75, multus-cni#648).
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_status_that_names_no_interface_is_served_by_the_interface_that_holds_the_address() {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let scene = Scene::new(Kind::Nftables, &[&first, &second]);
    let status = |address: &str| {
        format!(
            r#"[{{"name": "web/macvlan1", "ips": ["{address}", "fd00:1::7"], "dns": {{}}}}, {{"name": "web/macvlan2", "interface": "net2", "ips": ["10.2.0.57", "fd00:2::57"]}}]"#
        )
    };
    scene.driver.pod(&object_with(&scene.client, &status("10.1.0.7")));
    until("all is well", || {
        scene.driver.condition().holds && scene.why().is_empty()
    });
    for family in Family::ALL {
        assert!(scene.is_served(&first, family, 2), "{family}");
        assert!(scene.is_served(&second, family, 2), "{family}");
    }
    let services = scene.driver.state_of(&scene.object)["services"].to_string();
    assert!(
        services.contains("net1 10.1.0.7") && !services.contains("\"applied\":false"),
        "{services}"
    );
    // Of an address that no interface holds that is what is reported.
    scene
        .driver
        .pod(&object_with(&scene.client, &status("10.1.0.99")));
    until("rejected", || scene.ask(&first, Family::V4) == Outcome::Rejected);
    assert!(scene.is_served(&first, Family::V6, 2) && scene.is_served(&second, Family::V4, 2));
    until("the cause is reported", || {
        scene.why().contains("no interface of the pod has 10.1.0.99")
    });
    assert!(!scene.why().contains("IPAM"), "{}", scene.why());
}

/// What cannot be read of network-status harms its own address or entry.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn an_unreadable_address_of_one_network_harms_no_other() {
    let (first, second) = (service("first", 10, 1, 2), service("second", 20, 2, 2));
    let scene = Scene::new(Kind::Nftables, &[&first, &second]);
    let status = r#"[{"name": "web/macvlan1", "interface": "net1", "ips": ["<nil>", "fd00:1::7"]},
        {"name": 7},
        {"name": "web/macvlan2", "interface": "net2", "ips": ["10.2.0.57", "fd00:2::57"]}]"#;
    scene.driver.pod(&object_with(&scene.client, status));
    until("the address without a family is rejected", || {
        scene.ask(&first, Family::V4) == Outcome::Rejected
    });
    until("the bad address is named", || {
        scene
            .why()
            .contains("\"<nil>\" of network \"web/macvlan1\" is not an IP address")
    });
    assert!(scene.why().contains("entry 2"), "{}", scene.why());
    assert!(scene.is_served(&first, Family::V6, 2));
    scene.driver.service(&service("second", 20, 2, 3));
    for family in Family::ALL {
        until("the other network follows", || {
            scene.is_served(&second, family, 3)
        });
    }
}

/// IPv6 that somebody switched off on the interface is that family's fault alone, and is named as what it is.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn ipv6_switched_off_harms_ipv6_alone() {
    for kind in Kind::ALL {
        let first = service("first", 10, 1, 2);
        let scene = Scene::new(kind, &[&first]);
        for family in Family::ALL {
            until("served", || scene.is_served(&first, family, 2));
        }
        scene.client.sh("sysctl -qw net.ipv6.conf.net1.disable_ipv6=1");
        let late = service("late", 11, 1, 3);
        scene.driver.service(&late);
        until("the new Service is served by IPv4", || {
            scene.is_served(&late, Family::V4, 3)
        });
        until("IPv6 is rejected", || {
            scene.ask(&first, Family::V6) == Outcome::Rejected
                && scene.ask(&late, Family::V6) == Outcome::Rejected
        });
        assert!(scene.is_served(&first, Family::V4, 2));
        until("the cause is reported", || {
            scene.why().contains("IPv6 is disabled on interface \"net1\"")
        });
        assert!(scene.why().contains("IPv6 ClusterIPs"), "{}", scene.why());
        assert!(!scene.why().contains("DPDK"), "{}", scene.why());
        scene
            .client
            .sh("sysctl -qw net.ipv6.conf.net1.disable_ipv6=0; ip addr replace fd00:1::7/64 dev net1 nodad");
        until("served again", || scene.is_served(&late, Family::V6, 3));
        until("all is well", || scene.driver.condition().holds);
    }
}
