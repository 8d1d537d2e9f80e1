//! UDP and SCTP flows are deleted when their endpoint is no longer eligible.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, ready};
use super::sctp;
use super::traffic::{Flow, responding_host, udp};
use api::Family;
use prometheus_client::registry::Registry;
use proxy::metrics::Metrics;
use rules::Protocol::Sctp;
use std::net::UdpSocket;

for_every_backend_and_family![
    open_udp_socket_follows_its_service,
    udp_flow_older_than_the_rules_is_served,
    open_udp_socket_keeps_its_endpoint_while_others_change,
    sctp_association_is_restarted_at_a_remaining_endpoint,
    flow_to_the_previous_owner_of_a_cluster_ip_is_reset,
];

/// Makes the pod track connections before any managed rule exists, as a pod with its own firewall does.
pub(crate) fn track_connections(fixture: &Fixture) {
    fixture.client.sh("iptables-nft -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT; ip6tables-nft -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT");
}

/// The server pod is removed, replaced, absent for a while, and added back.
fn open_udp_socket_follows_its_service(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let mut web = Service::new("web", 10);
    let at = fixture.at(&web, 53);
    // Connected before the rules: its source address stays that of the cluster network for the life of the socket.
    let socket = fixture.client.run(|| udp(at)).unwrap();
    fixture.client.run(|| socket.connect(at)).unwrap();
    for hosts in [&[][..], &[2], &[3], &[], &[2], &[2, 3], &[3]] {
        web.endpoints = ready(hosts);
        fixture.sync_to(&[&web]);
        let host = responding_host(&socket, at);
        assert_eq!(host.is_some(), !hosts.is_empty(), "{hosts:?}");
        assert!(
            host.is_none_or(|host| hosts.contains(&host)),
            "{host:?} of {hosts:?}"
        );
    }
    fixture.sync_to(&[]);
    assert_eq!(responding_host(&socket, at), None);
}

fn udp_flow_older_than_the_rules_is_served(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    let at = fixture.at(&web, 53);
    track_connections(&fixture);
    let deleted_before = deletions();
    // Bound to the address it would have without rules, so that it remains the same flow.
    let source = fixture.cluster_address();
    let socket = fixture.client.run(|| UdpSocket::bind((source, 0))).unwrap();
    assert_eq!(responding_host(&socket, at), None);
    fixture.sync_to(&[&web]);
    assert_eq!(responding_host(&socket, at), Some(2));
    // Other tests of this process may delete flows, too.
    assert!(deletions() > deleted_before);
}

/// Deleted flows, as `/metrics` counts them for this process.
fn deletions() -> u64 {
    let mut registry = Registry::default();
    Metrics::new(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let sample = "multus_service_proxy_conntrack_deletions_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap().parse().unwrap()
}

fn open_udp_socket_keeps_its_endpoint_while_others_change(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3, 4]);
    let mut web = Service::new("web", 10).ready(&[3]);
    fixture.sync_to(&[&web]);
    let at = fixture.at(&web, 53);
    let socket = fixture.client.run(|| udp(at)).unwrap();
    for hosts in [&[3][..], &[2, 3], &[2, 3, 4], &[3, 4]] {
        web.endpoints = ready(hosts);
        fixture.sync_to(&[&web]);
        assert_eq!(responding_host(&socket, at), Some(3), "{hosts:?}");
    }
}

fn sctp_association_is_restarted_at_a_remaining_endpoint(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let (one, other) = (fixture.testbed.pod(2), fixture.testbed.pod(3));
    let _servers = [&one, &other].map(sctp::Server::start);
    let mut diameter = Service::new("diameter", 10).ports(&[(Sctp, 3868, sctp::PORT)]);
    let at = fixture.at(&diameter, 3868);
    let probe = |fixture: &Fixture| {
        fixture
            .client
            .run(|| sctp::request_from_port(None, 4444, at))
            .ok()
    };
    let answered_by =
        |answer: Option<String>| answer.map(|answer| answer.split(' ').next().unwrap().to_owned());
    track_connections(&fixture);
    assert_eq!(probe(&fixture), None);
    for (hosts, host) in [
        (&[2][..], Some("2")),
        (&[3], Some("3")),
        (&[], None),
        (&[2], Some("2")),
    ] {
        diameter.endpoints = ready(hosts);
        fixture.sync_to(&[&diameter]);
        assert_eq!(answered_by(probe(&fixture)).as_deref(), host);
    }
}

/// The previous owner of the address is a host on the cluster network.
fn flow_to_the_previous_owner_of_a_cluster_ip_is_reset(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let (web, other) = (Service::new("web", 10), Service::new("other", 11));
    let (vip, owner) = (web.vip(case.family), fixture.testbed.pod(3));
    let (length, gateway) = match case.family {
        Family::V4 => (32, "10.128.0.3"),
        Family::V6 => (128, "fd00:128::3"),
    };
    owner.sh(&format!("ip addr add {vip}/{length} dev eth0 nodad"));
    fixture.serve(&owner);
    fixture
        .client
        .sh(&format!("ip route add {vip}/{length} via {gateway}"));
    track_connections(&fixture);
    fixture.sync_to(&[&other]);
    let mut flow = fixture.client.run(|| Flow::open(fixture.at(&web, 8080))).unwrap();
    flow.echo(b"still there?");
    fixture.sync_to(&[&other, &web]);
    assert!(flow.is_reset());
}
