//! Endpoints in another subnet than the client's interface.

use super::fixture::Scene;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Endpoint, Service, ready};
use super::packet_capture::Capture;
use super::testbed::address;
use super::traffic::Outcome;
use rules::Family;
use rules::Protocol::{Tcp, Udp};
use std::net::IpAddr;

for_every_backend_and_family![
    an_endpoint_without_a_route_by_its_network_is_left_out_until_there_is_one,
    a_route_that_only_a_policy_for_the_source_address_finds_is_a_route,
];

/// A client and servers 2 and 3; host 3 answers at its address of network 2, a subnet of its own, on the wire of network 1. Returns
/// that address, the subnet, and `ip` of the family.
fn scene_with_a_far_server(case: Case) -> (Scene, IpAddr, &'static str, &'static str) {
    let mut scene = Scene::new(case, &[2]);
    let far = address(2, case.family, 3);
    let server = scene.bed.pod(3);
    let (ip, subnet, options) = match case.family {
        Family::V4 => ("ip", "10.2.0.0/16", "/16 dev net1"),
        Family::V6 => ("ip -6", "fd00:2::/64", "/64 dev net1 nodad"),
    };
    server.sh(&format!("ip addr add {far}{options}"));
    scene.serve(&server);
    (scene, far, subnet, ip)
}

/// Only host 3, by its address of network 2.
fn beyond() -> Vec<Endpoint> {
    let mut beyond = ready(&[3]);
    beyond[0].network = Some(2);
    beyond
}

/// As the IPAM plugins and OVN-Kubernetes do for further interfaces: a table for what comes from the interface's address.
fn a_route_that_only_a_policy_for_the_source_address_finds_is_a_route(case: Case) {
    let (mut scene, _, subnet, ip) = scene_with_a_far_server(case);
    let source = scene.source();
    scene.client.sh(&format!(
        "{ip} rule add from {source} lookup 100; {ip} route add {subnet} dev net1 table 100"
    ));
    let mut web = Service::new("web", 10);
    web.endpoints = beyond();
    let applied = scene.sync_to(&[&web]);
    assert!(
        !applied
            .unreachable
            .iter()
            .any(|lost| Family::of(lost.endpoint) == case.family)
    );
    assert_eq!(scene.ask(Tcp, scene.at(&web, 80)), Outcome::Answered(3, source));
}

fn an_endpoint_without_a_route_by_its_network_is_left_out_until_there_is_one(case: Case) {
    let (mut scene, far, subnet, ip) = scene_with_a_far_server(case);
    let mut web = Service::new("web", 10).ready(&[2]);
    web.endpoints.extend(beyond());
    let lost = |applied: &proxy::apply::Applied| -> Vec<String> {
        let lost = applied
            .unreachable
            .iter()
            .filter(|lost| Family::of(lost.endpoint) == case.family);
        lost.map(|lost| format!("{} {}", lost.source.interface, lost.endpoint))
            .collect()
    };
    let eth0 = Capture::on(&scene.client, "eth0");
    let applied = scene.sync_to(&[&web]);
    assert_eq!(lost(&applied), [format!("net1 {far}")]);
    for (protocol, port) in [(Tcp, 80), (Udp, 53)] {
        assert_eq!(scene.hosts(protocol, scene.at(&web, port)), [2]);
    }
    // The only one there is: rejected, not sent out by the default route.
    web.endpoints = beyond();
    let applied = scene.sync_to(&[&web]);
    assert_eq!(lost(&applied), [format!("net1 {far}")]);
    assert_eq!(scene.ask(Tcp, scene.at(&web, 80)), Outcome::Rejected);
    assert_eq!(eth0.naming(far), Vec::<Vec<u8>>::new());
    // Nothing but a route changes.
    scene.client.sh(&format!("{ip} route add {subnet} dev net1"));
    assert_eq!(lost(&scene.sync()), Vec::<String>::new());
    assert_eq!(
        scene.ask(Tcp, scene.at(&web, 80)),
        Outcome::Answered(3, scene.source())
    );
    scene.client.sh(&format!("{ip} route del {subnet} dev net1"));
    assert_eq!(lost(&scene.sync()), [format!("net1 {far}")]);
    assert_eq!(scene.ask(Tcp, scene.at(&web, 80)), Outcome::Rejected);
    assert_eq!(eth0.naming(far), Vec::<Vec<u8>>::new());
}
