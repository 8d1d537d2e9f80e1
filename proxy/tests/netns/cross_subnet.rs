//! Endpoints outside the subnet of the client's interface.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Endpoint, Service, ready};
use super::packet_capture::Capture;
use super::testbed::address;
use super::traffic::Outcome;
use api::Family;
use rules::Protocol::{Tcp, Udp};
use std::net::IpAddr;

for_every_backend_and_family![
    endpoint_without_a_route_on_its_network_is_excluded_until_a_route_exists,
    route_found_by_source_policy_routing_counts_as_a_route,
];

/// A client and servers 2 and 3. Host 3 responds at its address of network 2, a separate subnet on the wire of network 1. Returns that
/// address, the subnet, and the `ip` command of the family.
fn fixture_with_remote_subnet(case: Case) -> (Fixture, IpAddr, &'static str, &'static str) {
    let mut fixture = Fixture::new(case, &[2]);
    let remote = address(2, case.family, 3);
    let server = fixture.testbed.pod(3);
    let (ip, subnet, options) = match case.family {
        Family::V4 => ("ip", "10.2.0.0/16", "/16 dev net1"),
        Family::V6 => ("ip -6", "fd00:2::/64", "/64 dev net1 nodad"),
    };
    server.sh(&format!("ip addr add {remote}{options}"));
    fixture.serve(&server);
    (fixture, remote, subnet, ip)
}

/// Host 3 only, by its address of network 2.
fn remote_endpoints() -> Vec<Endpoint> {
    let mut remote_endpoints = ready(&[3]);
    remote_endpoints[0].network = Some(2);
    remote_endpoints
}

/// IPAM plugins and OVN-Kubernetes add such a table for traffic from the address of a secondary interface.
fn route_found_by_source_policy_routing_counts_as_a_route(case: Case) {
    let (mut fixture, _, subnet, ip) = fixture_with_remote_subnet(case);
    let source = fixture.source();
    fixture.client.sh(&format!(
        "{ip} rule add from {source} lookup 100; {ip} route add {subnet} dev net1 table 100"
    ));
    let mut web = Service::new("web", 10);
    web.endpoints = remote_endpoints();
    let applied = fixture.sync_to(&[&web]);
    assert!(
        !applied
            .unreachable
            .iter()
            .any(|unreachable| Family::of(unreachable.endpoint) == case.family)
    );
    assert_eq!(
        fixture.probe(Tcp, fixture.at(&web, 80)),
        Outcome::Answered(3, source)
    );
}

fn endpoint_without_a_route_on_its_network_is_excluded_until_a_route_exists(case: Case) {
    let (mut fixture, remote, subnet, ip) = fixture_with_remote_subnet(case);
    let mut web = Service::new("web", 10).ready(&[2]);
    web.endpoints.extend(remote_endpoints());
    let unreachable = |applied: &proxy::netns::apply::Applied| -> Vec<String> {
        let unreachable = applied
            .unreachable
            .iter()
            .filter(|unreachable| Family::of(unreachable.endpoint) == case.family);
        unreachable
            .map(|unreachable| format!("{} {}", unreachable.source.interface, unreachable.endpoint))
            .collect()
    };
    let eth0 = Capture::on(&fixture.client, "eth0");
    let applied = fixture.sync_to(&[&web]);
    assert_eq!(unreachable(&applied), [format!("net1 {remote}")]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(fixture.hosts(protocol, fixture.at(&web, port)), [2]);
    }
    // Without another endpoint the VIP is rejected; the packet does not use the default route.
    web.endpoints = remote_endpoints();
    let applied = fixture.sync_to(&[&web]);
    assert_eq!(unreachable(&applied), [format!("net1 {remote}")]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)), Outcome::Rejected);
    assert_eq!(eth0.frames_with(remote), Vec::<Vec<u8>>::new());
    // Only the route changes.
    fixture.client.sh(&format!("{ip} route add {subnet} dev net1"));
    assert_eq!(unreachable(&fixture.sync()), Vec::<String>::new());
    assert_eq!(
        fixture.probe(Tcp, fixture.at(&web, 80)),
        Outcome::Answered(3, fixture.source())
    );
    fixture.client.sh(&format!("{ip} route del {subnet} dev net1"));
    assert_eq!(unreachable(&fixture.sync()), [format!("net1 {remote}")]);
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)), Outcome::Rejected);
    assert_eq!(eth0.frames_with(remote), Vec::<Vec<u8>>::new());
}
