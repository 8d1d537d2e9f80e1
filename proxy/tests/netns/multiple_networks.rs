//! Several Services on several networks, and pods with several attachments.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, plan};
use super::packet_capture::Capture;
use super::testbed::address;
use super::traffic::Outcome;
use api::Family;
use api::network_status::NetworkStatus;
use rules::Protocol::{Tcp, Udp};

for_every_backend_and_family![
    many_services_on_one_network_each_reach_their_own_endpoints,
    services_with_the_same_port_on_two_networks_use_their_own_network,
    service_on_an_unattached_network_is_not_programmed,
    first_of_two_attachments_to_one_network_is_used_and_reported,
    single_family_interface_serves_that_family_and_rejects_the_other,
    link_flap_does_not_move_traffic_to_another_attachment,
];

fn many_services_on_one_network_each_reach_their_own_endpoints(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let services: Vec<Service> = (0..20_u8)
        .map(|n| Service::new(&format!("web-{n}"), 100 + n).ready(&[2 + n % 2]))
        .collect();
    fixture.sync_to(&services.iter().collect::<Vec<_>>());
    for service in &services {
        let host = service.endpoints[0].host;
        assert_eq!(
            fixture.probe(Tcp, fixture.at(service, 80)).host(),
            host,
            "{}",
            service.name
        );
    }
}

fn services_with_the_same_port_on_two_networks_use_their_own_network(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut far = fixture.testbed.pod(3);
    // Reachable through the second network only.
    fixture.testbed.attach(&mut far, 2, "net2", 13);
    far.sh("ip link set net1 down");
    fixture.serve(&far);
    let mut client = fixture.client.clone();
    fixture.testbed.attach(&mut client, 2, "net2", 17);
    fixture.client = client;
    let near = Service::new("near", 10).ready(&[2]);
    let second = Service {
        network: 2,
        ..Service::new("second", 11).ready(&[13])
    };
    fixture.sync_to(&[&near, &second]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        for (service, host, source) in [
            (&near, 2, address(1, case.family, 7)),
            (&second, 3, address(2, case.family, 17)),
        ] {
            let outcome = fixture.probe(protocol, fixture.at(service, port));
            assert!(
                matches!(outcome, Outcome::Answered(h, seen) if h == host && seen == source),
                "{}: {outcome:?}",
                service.name
            );
        }
    }
    // One Service is deleted; the other remains.
    fixture.sync_to(&[&second]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&second, 80)).host(), 3);
}

fn service_on_an_unattached_network_is_not_programmed(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let elsewhere = Service {
        network: 2,
        ..Service::new("elsewhere", 11).ready(&[13])
    };
    let before = fixture.client.state();
    assert!(!fixture.sync_to(&[&elsewhere]).written);
    assert_eq!(fixture.client.state(), before);
}

fn first_of_two_attachments_to_one_network_is_used_and_reported(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut client = fixture.client.clone();
    fixture.testbed.attach(&mut client, 1, "net2", 107);
    fixture.client = client;
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    for _ in 0..5 {
        let outcome = fixture.probe(Tcp, fixture.at(&web, 80));
        assert!(
            matches!(outcome, Outcome::Answered(2, seen) if seen == fixture.source()),
            "{outcome:?}"
        );
    }
    let shortcomings = plan(&fixture.client, &fixture.services).shortcomings;
    let shortcomings = shortcomings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        shortcomings.contains("2 interfaces") && shortcomings.contains("\"net1\""),
        "{shortcomings}"
    );
}

fn single_family_interface_serves_that_family_and_rejects_the_other(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let (other, flush) = match case.family {
        Family::V4 => (Family::V6, "ip -6 addr flush dev net1"),
        Family::V6 => (Family::V4, "ip -4 addr flush dev net1"),
    };
    fixture.client.sh(flush);
    let is_on_net1 = |status: &&mut NetworkStatus| status.interface == "net1";
    let net1 = fixture.client.status.iter_mut().find(is_on_net1).unwrap();
    net1.addresses
        .retain(|address| Family::of(*address) == case.family);
    let web = Service::new("web", 10).ready(&[2]);
    let capture = Capture::start(&fixture.client);
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(fixture.probe(protocol, fixture.at(&web, port)).host(), 2);
        assert_eq!(fixture.probe(protocol, web.at(other, port)), Outcome::Rejected);
    }
    let shortcomings = plan(&fixture.client, &fixture.services).shortcomings;
    let shortcomings: Vec<String> = shortcomings.iter().map(ToString::to_string).collect();
    assert!(
        shortcomings.len() == 1 && shortcomings[0].contains(&format!("has an {other} address")),
        "{shortcomings:?}"
    );
    // A layer-2 attachment has no address at all.
    fixture.client.sh("ip addr flush dev net1");
    let net1 = fixture.client.status.iter_mut().find(is_on_net1).unwrap();
    net1.addresses.clear();
    fixture.sync();
    for family in Family::ALL {
        assert_eq!(fixture.probe(Tcp, web.at(family, 80)), Outcome::Rejected);
        assert_eq!(capture.frames_with(web.vip(family)), Vec::<Vec<u8>>::new());
    }
}

/// After a flap the kernel prefers the route of the interface that stayed up.
fn link_flap_does_not_move_traffic_to_another_attachment(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut client = fixture.client.clone();
    fixture.testbed.attach(&mut client, 1, "net2", 107);
    fixture.client = client;
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
    // The kernel removes the IPv6 addresses of an interface that goes down.
    let (again, family) = match case.family {
        Family::V4 => (String::new(), "-4"),
        Family::V6 => {
            let address = address(1, Family::V6, 7);
            (format!("ip addr add {address}/64 dev net1 nodad"), "-6")
        }
    };
    fixture
        .client
        .sh(&format!("ip link set net1 down; ip link set net1 up; {again}"));
    let endpoint = address(1, case.family, 2);
    let leaves_by = fixture.client.sh(&format!(
        "ip {family} route get {endpoint} from {}",
        fixture.source()
    ));
    assert!(
        leaves_by.contains("dev net2"),
        "the test needs a route through net2: {leaves_by}"
    );
    let is_lost = |fixture: &mut Fixture| {
        let unreachable = fixture.sync().unreachable;
        unreachable.iter().any(|lost| lost.endpoint == endpoint)
    };
    assert!(is_lost(&mut fixture));
    let capture = Capture::on(&fixture.client, "net2");
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)), Outcome::Rejected);
    assert_eq!(capture.frames_with(fixture.source()), Vec::<Vec<u8>>::new());
    // A more specific route through the interface restores it.
    let subnet = if case.family == Family::V4 {
        "10.1.0.0/24"
    } else {
        "fd00:1::/72"
    };
    fixture.client.sh(&format!("ip route add {subnet} dev net1"));
    assert!(!is_lost(&mut fixture));
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
}
