//! Distribution of flows over the endpoints of a Service, and the client's address as seen by servers.

use super::fixture::{CLIENT, Fixture};
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::sctp;
use super::testbed::address;
use super::traffic::{Outcome, probe_repeatedly};
use rules::Protocol::{Sctp, Tcp, Udp};
use std::net::IpAddr;

for_every_backend_and_family![
    tcp_flows_are_balanced_and_use_the_attachment_address,
    udp_flows_are_balanced_and_use_the_attachment_address,
    sctp_associations_are_balanced_and_translated_in_both_directions,
    each_port_is_translated_to_its_own_target_port,
    same_port_of_several_protocols_is_translated_per_protocol,
    endpoints_of_all_slices_are_used,
    endpoints_beyond_one_slice_are_used,
    pod_reaches_itself_through_a_service,
];

/// `total` flows over `hosts` equal endpoints: each count is within five standard deviations, and every source is the client's address.
fn assert_balanced(
    outcomes: impl IntoIterator<Item = (Outcome, u32)>,
    total: u32,
    hosts: u32,
    source: IpAddr,
) {
    let mut answered = 0;
    let (n, p) = (f64::from(total), 1.0 / f64::from(hosts));
    let (expected, deviation) = (n * p, (n * p * (1.0 - p)).sqrt());
    for (outcome, count) in outcomes {
        assert!(
            matches!(outcome, Outcome::Answered(_, seen) if seen == source),
            "{outcome:?}"
        );
        let off = (f64::from(count) - expected).abs() / deviation;
        assert!(
            off < 5.0,
            "{outcome:?} {count} times of {total}: {off:.1} standard deviations off"
        );
        answered += 1;
    }
    assert_eq!(answered, hosts, "each endpoint is used");
}

fn tcp_flows_are_balanced_and_use_the_attachment_address(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let web = Service::new("web", 10).ready(&[2, 3, 4]);
    fixture.sync_to(&[&web]);
    let outcomes = probe_repeatedly(&fixture.client, Tcp, fixture.at(&web, 80), 300);
    assert_balanced(outcomes, 300, 3, fixture.source());
}

fn udp_flows_are_balanced_and_use_the_attachment_address(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let web = Service::new("web", 10).ready(&[2, 3, 4]);
    fixture.sync_to(&[&web]);
    let outcomes = probe_repeatedly(&fixture.client, Udp, fixture.at(&web, 53), 300);
    assert_balanced(outcomes, 300, 3, fixture.source());
}

fn sctp_associations_are_balanced_and_translated_in_both_directions(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let (one, other) = (fixture.testbed.pod(2), fixture.testbed.pod(3));
    let _servers = [&one, &other].map(sctp::Server::start);
    let diameter = Service::new("diameter", 10)
        .ports(&[(Sctp, 3869, sctp::PORT)])
        .ready(&[2, 3]);
    fixture.sync_to(&[&diameter]);
    let outcomes = probe_repeatedly(&fixture.client, Sctp, fixture.at(&diameter, 3869), 100);
    assert_balanced(outcomes, 100, 2, fixture.source());
}

fn each_port_is_translated_to_its_own_target_port(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let web = Service::new("web", 10)
        .ports(&[(Tcp, 80, 8080), (Tcp, 81, 8081), (Udp, 53, 5353)])
        .ready(&[2]);
    fixture.sync_to(&[&web]);
    for (protocol, port, target) in web.ports.clone() {
        let answer = fixture.request(protocol, fixture.at(&web, port)).unwrap();
        assert_eq!((answer.host, answer.port), (2, target));
    }
}

fn same_port_of_several_protocols_is_translated_per_protocol(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let _sctp = sctp::Server::start(&fixture.testbed.pod(4));
    let tcp_and_udp = Service::new("dns", 10)
        .ports(&[(Tcp, 53, 8081), (Udp, 53, 8080), (Sctp, 53, sctp::PORT)])
        .ready(&[2, 3]);
    fixture.sync_to(&[&tcp_and_udp]);
    let at = fixture.at(&tcp_and_udp, 53);
    for (protocol, target) in [(Tcp, 8081), (Udp, 8080)] {
        assert_eq!(fixture.request(protocol, at).unwrap().port, target);
    }
    let with_sctp = Service {
        endpoints: ready(&[4]),
        ..tcp_and_udp
    };
    fixture.sync_to(&[&with_sctp]);
    assert_eq!(fixture.probe(Sctp, at).host(), 4);
}

fn endpoints_of_all_slices_are_used(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let mut web = Service::new("web", 10)
        .ports(&[(Tcp, 80, 8080), (Tcp, 81, 8081)])
        .ready(&[2, 3, 4]);
    web.slices = 3;
    assert_eq!(web.slice_objects().len(), 6);
    fixture.sync_to(&[&web]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 80)), [2, 3, 4]);
    assert_eq!(fixture.hosts(Tcp, fixture.at(&web, 81)), [2, 3, 4]);
}

fn endpoints_beyond_one_slice_are_used(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    // One pod has the addresses of all 120 endpoints.
    let server = fixture.testbed.pod(3);
    let hosts: Vec<u8> = (100..220).collect();
    let add = |host: &u8| {
        let address = address(1, case.family, *host);
        let length = if address.is_ipv4() { 32 } else { 128 };
        format!("ip addr add {address}/{length} dev net1 nodad")
    };
    server.sh(&hosts.iter().map(add).collect::<Vec<_>>().join("\n"));
    fixture.serve(&server);
    let mut web = Service::new("web", 10).ready(&hosts);
    web.slices = 2;
    fixture.sync_to(&[&web]);
    let outcomes = probe_repeatedly(&fixture.client, Tcp, fixture.at(&web, 80), 1200);
    assert_eq!(outcomes.keys().map(Outcome::host).collect::<Vec<_>>(), [3]);
    // Neighbour entries of the client show the endpoints it used.
    let known = fixture.client.sh("ip neigh show dev net1");
    let used = hosts
        .iter()
        .filter(|host| known.contains(&format!("{} ", address(1, case.family, **host))))
        .count();
    // 1,200 flows miss one of 120 endpoints with a probability of e^-10.
    assert!(used >= 118, "{used} of 120 endpoints were used");
}

fn pod_reaches_itself_through_a_service(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let client = fixture.client.clone();
    fixture.serve(&client);
    let web = Service::new("web", 10).ready(&[CLIENT]);
    fixture.sync_to(&[&web]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        let outcome = fixture.probe(protocol, fixture.at(&web, port));
        let seen = fixture.source();
        assert!(
            matches!(outcome, Outcome::Answered(CLIENT, s) if s == seen),
            "{outcome:?}"
        );
    }
}
