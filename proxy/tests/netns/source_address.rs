//! Servers see the client's address on the Service's network, regardless of the address that the socket is bound to.

use super::fixture::{CLIENT, Fixture};
use super::matrix::{BackendKind, Case, for_every_backend_and_family};
use super::objects::Service;
use super::sctp;
use super::stale_flows::track_connections;
use super::testbed::{Pod, address};
use super::traffic::{Flow, Response, request_connected, request_connected_within, request_from, udp};
use api::Family;
use proxy::backend::KnownRules;
use rules::Protocol::{self, Sctp, Tcp, Udp};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

for_every_backend_and_family![
    bound_socket_uses_the_address_of_the_network,
    udp_socket_connected_before_the_rules_is_served,
    udp_socket_in_use_follows_a_service_that_gets_the_label,
    pod_that_is_its_own_endpoint_reaches_itself_from_any_address,
    udp_flow_with_a_wrong_source_is_translated_after_the_next_resync,
    flows_follow_an_attachment_whose_address_changes,
    flow_translated_by_another_table_keeps_its_source,
];

/// The client's host number on another network.
const OTHER: u8 = CLIENT + 50;

const PORTS: [(Protocol, u16, u16); 3] = [(Tcp, 80, 8080), (Udp, 53, 5353), (Sctp, 3868, sctp::PORT)];

/// Drops packets that arrive on another interface than responses would use, as many distributions do (RFC 3704, strict mode).
fn check_sources(server: &Pod) {
    server.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1
         nft add table inet strict
         nft add chain inet strict check '{ type filter hook prerouting priority raw; }'
         nft add rule inet strict check iifname net1 fib saddr . iif oif missing drop");
}

/// A server with strict source checks, and a client with a second network.
fn fixture(case: Case) -> (Fixture, sctp::Server) {
    let mut fixture = Fixture::new(case, &[]);
    let mut client = fixture.client.clone();
    fixture.testbed.attach(&mut client, 2, "net2", OTHER);
    fixture.client = client;
    let server = fixture.testbed.pod(2);
    check_sources(&server);
    fixture.serve(&server);
    (fixture, sctp::Server::start(&server))
}

fn web() -> Service {
    Service::new("web", 10).ready(&[2]).ports(&PORTS)
}

/// Sends a request from a socket that may be bound to `source`.
fn request(fixture: &Fixture, source: Option<IpAddr>, protocol: Protocol, to: SocketAddr) -> Response {
    let response = fixture.client.run(|| request_from(source, protocol, to));
    response.unwrap_or_else(|error| panic!("{protocol} from {source:?}: {error}"))
}

fn bound_socket_uses_the_address_of_the_network(case: Case) {
    let (mut fixture, _sctp) = fixture(case);
    // The same ports on the other network: only the ClusterIP selects the source address.
    let mut other = Service::new("other", 11).ready(&[OTHER]).ports(&PORTS);
    other.network = 2;
    fixture.sync_to(&[&web(), &other]);
    let sources = [
        None,
        Some(fixture.source()),
        Some(fixture.cluster_address()),
        Some(address(2, case.family, OTHER)),
    ];
    for source in sources {
        for (protocol, port, _) in PORTS {
            let answer = request(&fixture, source, protocol, fixture.at(&web(), port));
            let seen = (answer.host, answer.seen);
            assert_eq!(seen, (2, fixture.source()), "{protocol} from {source:?}");
        }
    }
    let at = fixture.at(&web(), 80);
    let source = fixture.cluster_address();
    let mut flow = fixture.client.run(|| Flow::open_from(source, at)).unwrap();
    flow.echo(&vec![7; 100_000]);
}

/// A UDP socket that was connected before any rule existed.
fn connected(fixture: &Fixture, to: SocketAddr) -> UdpSocket {
    let socket = fixture.client.run(|| {
        let socket = udp(to).unwrap();
        socket.connect(to).unwrap();
        socket
    });
    assert_eq!(socket.local_addr().unwrap().ip(), fixture.cluster_address());
    socket
}

/// A UDP socket that is bound to the client's address on the cluster network.
fn bound(fixture: &Fixture, to: SocketAddr) -> UdpSocket {
    let source = fixture.cluster_address();
    fixture.client.run(|| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(to).unwrap();
        socket
    })
}

/// The first response, within a second of the rules. Errors of earlier datagrams are reported to the next call, and a loaded machine
/// occasionally loses one.
fn response_within_a_second(socket: &UdpSocket) -> Response {
    let began = Instant::now();
    loop {
        match request_connected_within(socket, Duration::from_millis(200)) {
            Ok(answer) => return answer,
            Err(error) if began.elapsed() > Duration::from_secs(1) => panic!("{error}"),
            Err(_) => {}
        }
    }
}

fn udp_socket_connected_before_the_rules_is_served(case: Case) {
    for tracks in [false, true] {
        let (mut fixture, _sctp) = fixture(case);
        if tracks {
            track_connections(&fixture);
        }
        let socket = connected(&fixture, fixture.at(&web(), 53));
        request_connected(&socket).unwrap_err();
        fixture.sync_to(&[&web()]);
        let answer = response_within_a_second(&socket);
        assert_eq!((answer.host, answer.seen), (2, fixture.source()), "{tracks}");
        // Another Service, created while rules exist.
        let late = Service::new("late", 11).ready(&[2]).ports(&PORTS);
        let socket = connected(&fixture, fixture.at(&late, 53));
        request_connected(&socket).unwrap_err();
        fixture.sync_to(&[&web(), &late]);
        assert_eq!(
            response_within_a_second(&socket).seen,
            fixture.source(),
            "{tracks}"
        );
    }
}

/// Before, a node that translates as kube-proxy does served it on the cluster network.
fn udp_socket_in_use_follows_a_service_that_gets_the_label(case: Case) {
    let (mut fixture, _sctp) = fixture(case);
    let web = web().ports(&[(Udp, 5353, 5353)]);
    let (header, range, gateway) = match case.family {
        Family::V4 => ("ip", "172.30.0.0/16", "10.128.0.3"),
        Family::V6 => ("ip6", "fd00:96::/64", "fd00:128::3"),
    };
    let node = fixture.testbed.pod(3);
    let vip = web.vip(case.family);
    node.sh(&format!(
        "nft add table {header} services
         nft add chain {header} services prerouting '{{ type nat hook prerouting priority dstnat; }}'
         nft add rule {header} services prerouting {header} daddr {vip} dnat to {gateway}"
    ));
    fixture.serve(&node);
    fixture.client.sh(&format!("ip route add {range} via {gateway}"));
    // Another managed Service exists, so connections are tracked.
    let other = Service::new("other", 11);
    fixture.sync_to(&[&other]);
    let socket = connected(&fixture, fixture.at(&web, 5353));
    assert_eq!(request_connected(&socket).unwrap().host, 3);
    fixture.sync_to(&[&other, &web]);
    let answer = response_within_a_second(&socket);
    assert_eq!((answer.host, answer.seen), (2, fixture.source()));
}

fn pod_that_is_its_own_endpoint_reaches_itself_from_any_address(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let client = fixture.client.clone();
    fixture.serve(&client);
    let _sctp = sctp::Server::start(&client);
    fixture.sync_to(&[&web().ready(&[CLIENT])]);
    for source in [None, Some(fixture.source()), Some(fixture.cluster_address())] {
        for (protocol, port, _) in PORTS {
            let answer = request(&fixture, source, protocol, fixture.at(&web(), port));
            let seen = (answer.host, answer.seen);
            assert_eq!(seen, (CLIENT, fixture.source()), "{protocol} from {source:?}");
        }
    }
}

/// As left by a proxy without these rules, or by a process that removes them.
fn udp_flow_with_a_wrong_source_is_translated_after_the_next_resync(case: Case) {
    let (mut fixture, _sctp) = fixture(case);
    fixture.sync_to(&[&web()]);
    let flush = match (case.kind, case.family) {
        (BackendKind::Nftables, Family::V4) => "nft flush chain ip multus-proxy source",
        (BackendKind::Nftables, Family::V6) => "nft flush chain ip6 multus-proxy source",
        (BackendKind::IptablesNft, Family::V4) => "iptables-nft -t nat -F MSP-SOURCES",
        (BackendKind::IptablesNft, Family::V6) => "ip6tables-nft -t nat -F MSP-SOURCES",
        (BackendKind::IptablesLegacy, Family::V4) => "iptables-legacy -t nat -F MSP-SOURCES",
        (BackendKind::IptablesLegacy, Family::V6) => "ip6tables-legacy -t nat -F MSP-SOURCES",
    };
    fixture.client.sh(flush);
    let socket = bound(&fixture, fixture.at(&web(), 53));
    request_connected(&socket).unwrap_err();
    assert!(fixture.resync_writes());
    assert_eq!(response_within_a_second(&socket).seen, fixture.source());
    assert!(!fixture.resync_writes());
    assert_eq!(request_connected(&socket).unwrap().seen, fixture.source());
}

fn flows_follow_an_attachment_whose_address_changes(case: Case) {
    let (mut fixture, _sctp) = fixture(case);
    let (old, new) = (fixture.source(), address(1, case.family, 8));
    fixture.sync_to(&[&web()]);
    let socket = bound(&fixture, fixture.at(&web(), 53));
    assert_eq!(request_connected(&socket).unwrap().seen, old);
    let length = if case.family == Family::V4 { 16 } else { 64 };
    let add = format!("ip addr add {new}/{length} dev net1 nodad");
    fixture.client.sh(&add);
    let addresses = fixture
        .client
        .status
        .iter_mut()
        .flat_map(|status| &mut status.addresses);
    addresses
        .filter(|address| **address == old)
        .for_each(|address| *address = new);
    fixture.sync();
    assert_eq!(response_within_a_second(&socket).seen, new);
    for source in [None, Some(fixture.cluster_address()), Some(old)] {
        for (protocol, port, _) in PORTS {
            let answer = request(&fixture, source, protocol, fixture.at(&web(), port));
            assert_eq!(answer.seen, new, "{protocol} from {source:?}");
        }
    }
    let KnownRules::Exactly(held) = fixture.held() else {
        panic!("nothing is held");
    };
    let read = fixture.client.run(|| case.kind.backend().dump()).unwrap();
    assert_eq!(read, held.kernel_state());
    assert!(!fixture.resync_writes());
}

/// A pod with its own rules for an unmanaged address.
fn flow_translated_by_another_table_keeps_its_source(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let server = fixture.testbed.pod(2);
    fixture.serve(&server);
    server.link_local("eth0");
    fixture.client.link_local("net1");
    let (others, header) = match case.family {
        Family::V4 => ("172.31.0.1", "ip"),
        Family::V6 => ("fd00:97::1", "ip6"),
    };
    fixture.client.sh(&format!(
        "nft add table {header} others
         nft add chain {header} others output '{{ type nat hook output priority -90; }}'
         nft add rule {header} others output {header} daddr {others} tcp dport 80 dnat to {}",
        SocketAddr::new(address(1, case.family, 2), 8080)
    ));
    fixture.sync_to(&[&web()]);
    let to = SocketAddr::new(others.parse().unwrap(), 80);
    let source = fixture.cluster_address();
    assert_eq!(request(&fixture, Some(source), Tcp, to).seen, source);
}
