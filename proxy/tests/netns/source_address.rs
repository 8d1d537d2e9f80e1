//! Servers see the client's address on the Service's network, whichever of its addresses the client's socket has.

use super::fixture::{CLIENT, Scene};
use super::matrix::{Case, Kind, for_every_backend_and_family};
use super::objects::Service;
use super::sctp;
use super::stale_flows::track_connections;
use super::testbed::{Pod, address};
use super::traffic::{Answer, Flow, ask_connected, ask_connected_within, question_from, udp};
use proxy::backend::Held;
use rules::Family;
use rules::Protocol::{self, Sctp, Tcp, Udp};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

for_every_backend_and_family![
    a_bound_socket_leaves_with_the_address_of_the_network,
    a_udp_socket_connected_before_there_were_rules_is_served_by_them,
    a_udp_socket_in_use_follows_a_service_that_gets_the_label,
    a_pod_that_is_its_own_endpoint_reaches_itself_from_any_address,
    a_udp_flow_that_left_with_another_address_is_translated_after_the_next_look,
    flows_follow_an_attachment_that_gets_another_address,
    a_flow_that_others_translate_keeps_its_source,
];

/// The client's host number on another network.
const OTHER: u8 = CLIENT + 50;

const PORTS: [(Protocol, u16, u16); 3] = [(Tcp, 80, 8080), (Udp, 53, 5353), (Sctp, 3868, sctp::PORT)];

/// Drops what comes by another interface than answers would leave by, as many distributions do (RFC 3704, strict mode).
fn check_sources(server: &Pod) {
    server.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1
         nft add table inet strict
         nft add chain inet strict check '{ type filter hook prerouting priority raw; }'
         nft add rule inet strict check iifname net1 fib saddr . iif oif missing drop");
}

/// A server that checks sources, and a client that is on another network too.
fn scene(case: Case) -> (Scene, sctp::Server) {
    let mut scene = Scene::new(case, &[]);
    let mut client = scene.client.clone();
    scene.bed.attach(&mut client, 2, "net2", OTHER);
    scene.client = client;
    let server = scene.bed.pod(2);
    check_sources(&server);
    scene.serve(&server);
    (scene, sctp::Server::start(&server))
}

fn web() -> Service {
    Service::new("web", 10).ready(&[2]).ports(&PORTS)
}

/// Asks from a socket that is bound to `source`, or not.
fn ask(scene: &Scene, source: Option<IpAddr>, protocol: Protocol, to: SocketAddr) -> Answer {
    let asked = scene.client.run(|| question_from(source, protocol, to));
    asked.unwrap_or_else(|error| panic!("{protocol} from {source:?}: {error}"))
}

fn a_bound_socket_leaves_with_the_address_of_the_network(case: Case) {
    let (mut scene, _sctp) = scene(case);
    // The same ports on the other network: the ClusterIP alone says which source is right.
    let mut other = Service::new("other", 11).ready(&[OTHER]).ports(&PORTS);
    other.network = 2;
    scene.sync_to(&[&web(), &other]);
    let sources = [
        None,
        Some(scene.source()),
        Some(scene.cluster_address()),
        Some(address(2, case.family, OTHER)),
    ];
    for source in sources {
        for (protocol, port, _) in PORTS {
            let answer = ask(&scene, source, protocol, scene.at(&web(), port));
            let seen = (answer.host, answer.seen);
            assert_eq!(seen, (2, scene.source()), "{protocol} from {source:?}");
        }
    }
    let at = scene.at(&web(), 80);
    let source = scene.cluster_address();
    let mut flow = scene.client.run(|| Flow::open_from(source, at)).unwrap();
    flow.echo(&vec![7; 100_000]);
}

/// A UDP socket that was connected when there was no rule.
fn connected(scene: &Scene, to: SocketAddr) -> UdpSocket {
    let socket = scene.client.run(|| {
        let socket = udp(to).unwrap();
        socket.connect(to).unwrap();
        socket
    });
    assert_eq!(socket.local_addr().unwrap().ip(), scene.cluster_address());
    socket
}

/// One that is bound to the client's address on the cluster network.
fn bound(scene: &Scene, to: SocketAddr) -> UdpSocket {
    let source = scene.cluster_address();
    scene.client.run(|| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(to).unwrap();
        socket
    })
}

/// The first answer, within a second of the rules. Errors of earlier datagrams are reported to the next call, and a busy machine loses
/// one now and then.
fn answer_soon(socket: &UdpSocket) -> Answer {
    let began = Instant::now();
    loop {
        match ask_connected_within(socket, Duration::from_millis(200)) {
            Ok(answer) => return answer,
            Err(error) if began.elapsed() > Duration::from_secs(1) => panic!("{error}"),
            Err(_) => {}
        }
    }
}

fn a_udp_socket_connected_before_there_were_rules_is_served_by_them(case: Case) {
    for tracks in [false, true] {
        let (mut scene, _sctp) = scene(case);
        if tracks {
            track_connections(&scene);
        }
        let socket = connected(&scene, scene.at(&web(), 53));
        ask_connected(&socket).unwrap_err();
        scene.sync_to(&[&web()]);
        let answer = answer_soon(&socket);
        assert_eq!((answer.host, answer.seen), (2, scene.source()), "{tracks}");
        // Another Service, created while there are rules.
        let late = Service::new("late", 11).ready(&[2]).ports(&PORTS);
        let socket = connected(&scene, scene.at(&late, 53));
        ask_connected(&socket).unwrap_err();
        scene.sync_to(&[&web(), &late]);
        assert_eq!(answer_soon(&socket).seen, scene.source(), "{tracks}");
    }
}

/// Until then it was served on the cluster network, by a node that translates as kube-proxy does.
fn a_udp_socket_in_use_follows_a_service_that_gets_the_label(case: Case) {
    let (mut scene, _sctp) = scene(case);
    let web = web().ports(&[(Udp, 5353, 5353)]);
    let (header, range, gateway) = match case.family {
        Family::V4 => ("ip", "172.30.0.0/16", "10.128.0.3"),
        Family::V6 => ("ip6", "fd00:96::/64", "fd00:128::3"),
    };
    let node = scene.bed.pod(3);
    let vip = web.vip(case.family);
    node.sh(&format!(
        "nft add table {header} services
         nft add chain {header} services prerouting '{{ type nat hook prerouting priority dstnat; }}'
         nft add rule {header} services prerouting {header} daddr {vip} dnat to {gateway}"
    ));
    scene.serve(&node);
    scene.client.sh(&format!("ip route add {range} via {gateway}"));
    // There is a Service of ours, so connections are tracked.
    let other = Service::new("other", 11);
    scene.sync_to(&[&other]);
    let socket = connected(&scene, scene.at(&web, 5353));
    assert_eq!(ask_connected(&socket).unwrap().host, 3);
    scene.sync_to(&[&other, &web]);
    let answer = answer_soon(&socket);
    assert_eq!((answer.host, answer.seen), (2, scene.source()));
}

fn a_pod_that_is_its_own_endpoint_reaches_itself_from_any_address(case: Case) {
    let mut scene = Scene::new(case, &[]);
    let client = scene.client.clone();
    scene.serve(&client);
    let _sctp = sctp::Server::start(&client);
    scene.sync_to(&[&web().ready(&[CLIENT])]);
    for source in [None, Some(scene.source()), Some(scene.cluster_address())] {
        for (protocol, port, _) in PORTS {
            let answer = ask(&scene, source, protocol, scene.at(&web(), port));
            let seen = (answer.host, answer.seen);
            assert_eq!(seen, (CLIENT, scene.source()), "{protocol} from {source:?}");
        }
    }
}

/// As a proxy without such rules leaves it, or somebody who removes them.
fn a_udp_flow_that_left_with_another_address_is_translated_after_the_next_look(case: Case) {
    let (mut scene, _sctp) = scene(case);
    scene.sync_to(&[&web()]);
    let flush = match (case.kind, case.family) {
        (Kind::Nftables, Family::V4) => "nft flush chain ip multus-proxy source",
        (Kind::Nftables, Family::V6) => "nft flush chain ip6 multus-proxy source",
        (Kind::IptablesNft, Family::V4) => "iptables-nft -t nat -F MSP-SOURCES",
        (Kind::IptablesNft, Family::V6) => "ip6tables-nft -t nat -F MSP-SOURCES",
        (Kind::IptablesLegacy, Family::V4) => "iptables-legacy -t nat -F MSP-SOURCES",
        (Kind::IptablesLegacy, Family::V6) => "ip6tables-legacy -t nat -F MSP-SOURCES",
    };
    scene.client.sh(flush);
    let socket = bound(&scene, scene.at(&web(), 53));
    ask_connected(&socket).unwrap_err();
    assert!(scene.sync_again_writes());
    assert_eq!(answer_soon(&socket).seen, scene.source());
    assert!(!scene.sync_again_writes());
    assert_eq!(ask_connected(&socket).unwrap().seen, scene.source());
}

fn flows_follow_an_attachment_that_gets_another_address(case: Case) {
    let (mut scene, _sctp) = scene(case);
    let (old, new) = (scene.source(), address(1, case.family, 8));
    scene.sync_to(&[&web()]);
    let socket = bound(&scene, scene.at(&web(), 53));
    assert_eq!(ask_connected(&socket).unwrap().seen, old);
    let length = if case.family == Family::V4 { 16 } else { 64 };
    let add = format!("ip addr add {new}/{length} dev net1 nodad");
    scene.client.sh(&add);
    let addresses = scene
        .client
        .status
        .iter_mut()
        .flat_map(|status| &mut status.addresses);
    addresses
        .filter(|address| **address == old)
        .for_each(|address| *address = new);
    scene.sync();
    assert_eq!(answer_soon(&socket).seen, new);
    for source in [None, Some(scene.cluster_address()), Some(old)] {
        for (protocol, port, _) in PORTS {
            let answer = ask(&scene, source, protocol, scene.at(&web(), port));
            assert_eq!(answer.seen, new, "{protocol} from {source:?}");
        }
    }
    let Held::Exactly(held) = scene.held() else {
        panic!("nothing is held");
    };
    let read = scene.client.run(|| case.kind.backend().dump()).unwrap();
    assert_eq!(read, held.dump());
    assert!(!scene.sync_again_writes());
}

/// A pod with rules of its own for an address that is none of ours.
fn a_flow_that_others_translate_keeps_its_source(case: Case) {
    let mut scene = Scene::new(case, &[]);
    let server = scene.bed.pod(2);
    scene.serve(&server);
    server.link_local("eth0");
    scene.client.link_local("net1");
    let (others, header) = match case.family {
        Family::V4 => ("172.31.0.1", "ip"),
        Family::V6 => ("fd00:97::1", "ip6"),
    };
    scene.client.sh(&format!(
        "nft add table {header} others
         nft add chain {header} others output '{{ type nat hook output priority -90; }}'
         nft add rule {header} others output {header} daddr {others} tcp dport 80 dnat to {}",
        SocketAddr::new(address(1, case.family, 2), 8080)
    ));
    scene.sync_to(&[&web()]);
    let to = SocketAddr::new(others.parse().unwrap(), 80);
    let source = scene.cluster_address();
    assert_eq!(ask(&scene, Some(source), Tcp, to).seen, source);
}
