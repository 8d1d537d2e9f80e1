//! Unserved traffic is rejected at once, and no packet to a VIP, nor a neighbour request for it, leaves the pod.

use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::{Service, ready, unready};
use super::packet_capture::{Capture, ping};
use super::traffic::{Outcome, request_connected, udp};
use nix::errno::Errno;
use rules::Protocol::{self, Sctp, Tcp, Udp};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

for_every_backend_and_family![
    service_without_endpoints_rejects_at_once,
    service_with_only_unready_endpoints_rejects_at_once,
    unknown_port_of_a_service_is_rejected_at_once,
    vip_never_appears_on_the_wire,
    rejected_udp_socket_gets_the_documented_errors,
    rejected_udp_socket_follows_its_service,
    rejected_udp_socket_is_released_with_its_service,
];

/// Asserts the documented errno for repeated requests.
fn assert_rejected(fixture: &Fixture, protocol: Protocol, destination: SocketAddr) {
    for _ in 0..5 {
        assert_eq!(fixture.probe(protocol, destination), Outcome::Rejected);
        let errno = fixture.request(protocol, destination).unwrap_err().kind();
        let documented = match protocol {
            Tcp | Udp => ErrorKind::ConnectionRefused,
            // From connect().
            Sctp => ErrorKind::PermissionDenied,
        };
        assert_eq!(errno, documented, "{protocol} {destination}");
    }
}

/// A socket of the client, connected to a rejected port. Errors are reported once the call that causes them has returned.
fn rejected_socket(fixture: &Fixture, at: SocketAddr) -> UdpSocket {
    let socket = fixture.client.run(|| {
        let socket = udp(at).unwrap();
        socket.connect(at).unwrap();
        socket
    });
    socket.set_nonblocking(true).unwrap();
    assert_eq!(errors(&socket), [None, Some(ErrorKind::ConnectionRefused)]);
    socket
}

/// Errors of one `send()` and of the following `recv()`.
fn errors(socket: &UdpSocket) -> [Option<ErrorKind>; 2] {
    let send = socket.send(b"ping");
    let receive = socket.recv(&mut [0; 128]);
    [send, receive].map(|result| result.err().map(|error| error.kind()))
}

/// Errors of each call as documented in docs/user/services.md.
fn rejected_udp_socket_gets_the_documented_errors(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    fixture.sync_to(&[&web, &empty]);
    for at in [fixture.at(&web, 9), fixture.at(&empty, 53)] {
        // A program of the pod that is bound to the port on all addresses receives nothing.
        let server = fixture
            .client
            .run(|| UdpSocket::bind((unspecified(at), at.port())));
        let server = server.unwrap();
        server.set_nonblocking(true).unwrap();
        let connected = rejected_socket(&fixture, at);
        for _ in 0..2 {
            assert_eq!(errors(&connected), [None, Some(ErrorKind::ConnectionRefused)]);
        }
        // The error of a send() is reported by the next call.
        connected.send(b"ping").unwrap();
        let next = connected.send(b"ping").unwrap_err().kind();
        assert_eq!(next, ErrorKind::ConnectionRefused);
        let other = fixture.client.run(|| udp(at)).unwrap();
        other.set_nonblocking(true).unwrap();
        for _ in 0..2 {
            other.send_to(b"ping", at).unwrap();
            let received = other.recv(&mut [0; 16]).unwrap_err().kind();
            assert_eq!(received, ErrorKind::WouldBlock);
        }
        let received = server.recv(&mut [0; 16]).unwrap_err().kind();
        assert_eq!(received, ErrorKind::WouldBlock);
    }
}

fn unspecified(at: SocketAddr) -> IpAddr {
    match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A socket that keeps sending keeps its flow alive: the flow has to be deleted when it may go elsewhere.
fn rejected_udp_socket_follows_its_service(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let (empty, web) = (Service::new("web", 10), Service::new("web", 10).ready(&[2]));
    let without_udp = web.clone().ports(&[(Tcp, 80, 8080)]);
    for before in [&empty, &without_udp] {
        fixture.sync_to(&[before]);
        let socket = rejected_socket(&fixture, fixture.at(&web, 53));
        fixture.sync_to(&[&web]);
        socket.set_nonblocking(false).unwrap();
        assert_eq!(request_connected(&socket).unwrap().host, 2);
        fixture.sync_to(&[before]);
        socket.set_nonblocking(true).unwrap();
        assert_eq!(errors(&socket), [None, Some(ErrorKind::ConnectionRefused)]);
    }
}

/// The address then belongs to another proxy, or to nothing.
fn rejected_udp_socket_is_released_with_its_service(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let (web, other) = (Service::new("web", 10), Service::new("other", 11).ready(&[2]));
    // Lets packets leave without neighbour discovery.
    for gateway in ["10.128.0.1", "fd00:128::1"] {
        let neighbour = format!("ip neigh replace {gateway} lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
        fixture.client.sh(&neighbour);
    }
    // Other Services remain, none remains, and the proxy cleans up.
    for after in [Some(vec![&other]), Some(vec![]), None] {
        fixture.sync_to(&[&web, &other]);
        let sockets = [53, 9].map(|port| rejected_socket(&fixture, fixture.at(&web, port)));
        match after {
            Some(services) => _ = fixture.sync_to(&services),
            None => fixture.client.cleanup(),
        }
        for socket in &sockets {
            let capture = Capture::start(&fixture.client);
            assert_eq!(errors(socket), [None, Some(ErrorKind::WouldBlock)]);
            assert!(!capture.frames_with(web.vip(case.family)).is_empty());
        }
    }
}

fn service_without_endpoints_rejects_at_once(case: Case) {
    let mut fixture = Fixture::new(case, &[]);
    let mut web = Service::new("web", 10).ports(&[(Tcp, 80, 8080), (Udp, 53, 5353), (Sctp, 3868, 3868)]);
    fixture.sync_to(&[&web]);
    for (protocol, port, _) in web.ports.clone() {
        assert_rejected(&fixture, protocol, fixture.at(&web, port));
    }
    // The last endpoint is removed.
    web.endpoints = ready(&[2]);
    fixture.sync_to(&[&web]);
    web.endpoints.clear();
    fixture.sync_to(&[&web]);
    for (protocol, port, _) in web.ports.clone() {
        assert_rejected(&fixture, protocol, fixture.at(&web, port));
    }
}

fn service_with_only_unready_endpoints_rejects_at_once(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let mut web = Service::new("web", 10);
    web.endpoints = unready(&[2]);
    fixture.sync_to(&[&web]);
    assert_rejected(&fixture, Tcp, fixture.at(&web, 80));
    assert_rejected(&fixture, Udp, fixture.at(&web, 53));
}

fn unknown_port_of_a_service_is_rejected_at_once(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    // The port of another protocol, the target port, and unknown ports.
    for (protocol, port) in [
        (Udp, 80),
        (Tcp, 53),
        (Tcp, 8080),
        (Udp, 5353),
        (Tcp, 81),
        (Udp, 9),
        (Sctp, 80),
    ] {
        assert_rejected(&fixture, protocol, fixture.at(&web, port));
    }
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
}

fn vip_never_appears_on_the_wire(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let (web, empty) = (Service::new("web", 10).ready(&[2]), Service::new("empty", 11));
    let probe_all_ports = |fixture: &Fixture, service: &Service| {
        let ports = [(Tcp, 80), (Tcp, 81), (Udp, 53), (Udp, 9), (Sctp, 9)];
        fixture.client.run(|| {
            for (protocol, port) in ports {
                super::traffic::probe(protocol, fixture.at(service, port));
            }
            // Also a protocol without ports.
            ping(service.vip(fixture.family))
        })
    };
    let capture = Capture::start(&fixture.client);
    fixture.client.run(|| ping(web.vip(case.family))).unwrap();
    assert!(
        !capture.frames_with(web.vip(case.family)).is_empty(),
        "without rules the capture must see the VIP"
    );
    fixture.sync_to(&[&web, &empty]);
    for service in [&web, &empty] {
        let capture = Capture::start(&fixture.client);
        assert_eq!(probe_all_ports(&fixture, service), Err(Errno::EPERM));
        assert_eq!(
            capture.frames_with(service.vip(case.family)),
            Vec::<Vec<u8>>::new()
        );
    }
}
