//! Flows without connections must not stay with an endpoint that may not have them any more.

use super::fixture::Scene;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::sctp;
use super::traffic::{Flow, host_behind, udp};
use rules::Family;
use rules::Protocol::Sctp;
use std::net::UdpSocket;

for_every_backend_and_family![
    an_open_udp_socket_follows_its_service,
    a_udp_flow_that_began_before_the_rules_is_served_by_them,
    an_open_udp_socket_stays_with_its_endpoint_while_others_change,
    a_sctp_association_is_begun_anew_at_an_endpoint_that_is_there,
    a_flow_to_somebody_who_had_the_address_before_ends_at_once,
];

/// Makes the pod track connections before any rule of ours, as a pod with a firewall of its own does.
pub(crate) fn track_connections(scene: &Scene) {
    scene.client.sh("iptables-nft -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT; ip6tables-nft -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT");
}

/// A server pod cycles: removed, replaced, none for a while, back.
fn an_open_udp_socket_follows_its_service(case: Case) {
    let mut scene = Scene::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    let at = scene.at(&web, 53);
    // Connected before there are rules: its source address is that of the cluster network for the life of the socket.
    let socket = scene.client.run(|| udp(at)).unwrap();
    scene.client.run(|| socket.connect(at)).unwrap();
    for hosts in [&[][..], &[2], &[3], &[], &[2], &[2, 3], &[3]] {
        web.endpoints = ready(hosts);
        scene.sync_to(&[&web]);
        let host = host_behind(&socket, at);
        assert_eq!(host.is_some(), !hosts.is_empty(), "{hosts:?}");
        assert!(
            host.is_none_or(|host| hosts.contains(&host)),
            "{host:?} of {hosts:?}"
        );
    }
    scene.sync_to(&[]);
    assert_eq!(host_behind(&socket, at), None);
}

fn a_udp_flow_that_began_before_the_rules_is_served_by_them(case: Case) {
    let mut scene = Scene::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    let at = scene.at(&web, 53);
    track_connections(&scene);
    // Bound to the address it would have without rules, so that it is the same flow afterwards.
    let source = scene.cluster_address();
    let socket = scene.client.run(|| UdpSocket::bind((source, 0))).unwrap();
    assert_eq!(host_behind(&socket, at), None);
    scene.sync_to(&[&web]);
    assert_eq!(host_behind(&socket, at), Some(2));
}

fn an_open_udp_socket_stays_with_its_endpoint_while_others_change(case: Case) {
    let mut scene = Scene::new(case, &[2, 3, 4]);
    let mut web = Service::new("web", 10).ready(&[3]);
    scene.sync_to(&[&web]);
    let at = scene.at(&web, 53);
    let socket = scene.client.run(|| udp(at)).unwrap();
    for hosts in [&[3][..], &[2, 3], &[2, 3, 4], &[3, 4]] {
        web.endpoints = ready(hosts);
        scene.sync_to(&[&web]);
        assert_eq!(host_behind(&socket, at), Some(3), "{hosts:?}");
    }
}

fn a_sctp_association_is_begun_anew_at_an_endpoint_that_is_there(case: Case) {
    let mut scene = Scene::new(case, &[]);
    let (one, other) = (scene.bed.pod(2), scene.bed.pod(3));
    let _servers = [&one, &other].map(sctp::Server::start);
    let mut diameter = Service::new("diameter", 10).ports(&[(Sctp, 3868, sctp::PORT)]);
    let at = scene.at(&diameter, 3868);
    let ask = |scene: &Scene| scene.client.run(|| sctp::ask_from(None, 4444, at)).ok();
    let answered_by =
        |answer: Option<String>| answer.map(|answer| answer.split(' ').next().unwrap().to_owned());
    track_connections(&scene);
    assert_eq!(ask(&scene), None);
    for (hosts, host) in [
        (&[2][..], Some("2")),
        (&[3], Some("3")),
        (&[], None),
        (&[2], Some("2")),
    ] {
        diameter.endpoints = ready(hosts);
        scene.sync_to(&[&diameter]);
        assert_eq!(answered_by(ask(&scene)).as_deref(), host);
    }
}

/// Whoever had the address of a new ClusterIP until now, on the cluster network.
fn a_flow_to_somebody_who_had_the_address_before_ends_at_once(case: Case) {
    let mut scene = Scene::new(case, &[]);
    let (web, other) = (Service::new("web", 10), Service::new("other", 11));
    let (vip, owner) = (web.vip(case.family), scene.bed.pod(3));
    let (length, gateway) = match case.family {
        Family::V4 => (32, "10.128.0.3"),
        Family::V6 => (128, "fd00:128::3"),
    };
    owner.sh(&format!("ip addr add {vip}/{length} dev eth0 nodad"));
    scene.serve(&owner);
    scene
        .client
        .sh(&format!("ip route add {vip}/{length} via {gateway}"));
    track_connections(&scene);
    scene.sync_to(&[&other]);
    let mut flow = scene.client.run(|| Flow::open(scene.at(&web, 8080))).unwrap();
    flow.echo(b"who is there?");
    scene.sync_to(&[&other, &web]);
    assert!(flow.is_reset());
}
